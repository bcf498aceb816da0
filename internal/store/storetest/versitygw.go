package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"pileus/internal/store"
)

// S3 is a running S3 server with one empty bucket.
type S3 struct {
	URL     string        // the bucket, for store.Open; self-contained save for the keys
	Options store.Options // the same settings for a URL without a query
	Env     []string      // AWS_*=..., for processes that a test starts
	Bucket  string
	Client  *s3.Client // speaks to the server directly
	Process *os.Process
}

// StartS3 starts a versitygw on a free port of the loopback interface, with keys
// of its own in the environment of the test (so the test cannot be parallel), and
// stops it when the test ends. Each call starts a new server. Without the program
// the test fails, save with -short.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	program := findVersitygw(t)
	access, secret := "test"+rand.Text()[:12], rand.Text()
	const bucket, region = "pileus-test", "us-east-1"

	s := &S3{
		Bucket: bucket,
		Env: []string{
			"AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_REGION=" + region,
			"AWS_SESSION_TOKEN=", "AWS_PROFILE=", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		},
	}
	t.Setenv("AWS_ACCESS_KEY_ID", access)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_REGION", region)
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")

	address := freeAddress(t)
	endpoint := "http://" + address
	logFile, err := os.Create(filepath.Join(t.TempDir(), "versitygw.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--port", address, "--region", region, "--health", "/health", "posix", t.TempDir())
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+access, "ROOT_SECRET_ACCESS_KEY="+secret)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it is killed in the end: its exit status says nothing
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-exited
		logFile.Close()
	})
	waitReady(t, endpoint+"/health", exited, logFile.Name())

	s.Process = cmd.Process
	s.Client = s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
	})
	if _, err := s.Client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
		t.Fatalf("create the test bucket: %v", err)
	}
	s.URL = fmt.Sprintf("s3://%s?region=%s&endpoint=%s&use_path_style=true", bucket, region, endpoint)
	s.Options.S3 = store.S3Options{Endpoint: endpoint, Region: region, PathStyle: true}
	return s
}

// Open opens a store below prefix, which may be empty.
func (s *S3) Open(t testing.TB, prefix string) store.Store {
	t.Helper()
	opened, err := store.Open(t.Context(), "s3://"+s.Bucket+"/"+prefix, s.Options)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func findVersitygw(t testing.TB) string {
	t.Helper()
	tools := os.Getenv("PILEUS_TOOLS")
	if tools == "" {
		tools = "/var/tmp/pileus-tools-" + strconv.Itoa(os.Getuid())
	}
	program := filepath.Join(tools, "bin", "versitygw")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if program, err := exec.LookPath("versitygw"); err == nil {
		return program
	}
	if testing.Short() {
		t.Skip("-short: no versitygw, so nothing is tested against S3")
	}
	t.Fatalf("no S3 server: %s is missing; run scripts/install-tools.sh, or\n\tGOBIN=%s go install github.com/versity/versitygw/cmd/versitygw@v1.8.0\n(go test -short goes without)",
		program, filepath.Dir(program))
	return ""
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // only its port is wanted
	return l.Addr().String()
}

func waitReady(t testing.TB, url string, exited <-chan struct{}, logName string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-exited:
			output, _ := os.ReadFile(logName) // whatever there is
			t.Fatalf("versitygw ended at once:\n%s", output)
		case <-ctx.Done():
			output, _ := os.ReadFile(logName) // whatever there is
			t.Fatalf("versitygw is not ready after 30 s:\n%s", output)
		}
	}
}
