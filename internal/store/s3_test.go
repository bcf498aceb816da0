package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

func TestS3Large(t *testing.T) {
	server := storetest.StartS3(t)
	s := server.Open(t, "large")
	// Above the limit of one request, and not a multiple of the part size.
	content := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstu\n"), (66<<20)/32)
	content = append(content, "tail"...)
	if err := s.Put(t.Context(), "big", bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "big", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read back %d bytes of %d: %v", len(got), len(content), err)
	}
	content[0] = 'X'
	if err := s.Put(t.Context(), "big", bytes.NewReader(content)); !errors.Is(err, store.ErrExists) {
		t.Errorf("put over it: %v, want ErrExists", err)
	}
	var wins atomic.Int32
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			switch err := s.Put(t.Context(), "race", bytes.NewReader(content)); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, store.ErrExists):
				t.Errorf("large race: %v", err)
			}
		})
	}
	writers.Wait()
	left, err := server.Client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String(server.Bucket)})
	if err != nil || len(left.Uploads) != 0 {
		t.Errorf("unfinished uploads: %v, %v", left, err)
	}
	if wins.Load() != 1 {
		t.Errorf("%d large uploads of one key won", wins.Load())
	}
}

// TestS3WrongDoor: what cannot pass is not called unavailable, and what is not an
// answer about the object is not called "not found".
func TestS3WrongDoor(t *testing.T) {
	server := storetest.StartS3(t)
	open := func(rawURL string) error {
		_, err := store.Open(t.Context(), rawURL, server.Options)
		return err
	}
	neither := func(what string, err error, says string) {
		t.Helper()
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want a final error that says %q", what, err, says)
		}
	}
	neither("missing bucket", open("s3://no-such-bucket/x"), "no such bucket")

	s := server.Open(t, "")
	if _, err := server.Client.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String(server.Bucket)}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Stat(t.Context(), "k")
	neither("stat in a deleted bucket", err, "no such bucket")
	_, err = s.Get(t.Context(), "k", 0, -1)
	neither("get from a deleted bucket", err, "no such bucket")
	neither("put into a deleted bucket", s.Put(t.Context(), "k", strings.NewReader("x")), "no such bucket")

	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	neither("wrong key", open(server.URL), "s3:ListBucket")
	if err := open(server.URL); strings.Contains(fmt.Sprint(err), "wrong") {
		t.Errorf("the error repeats the key: %v", err)
	}
}

// proxy passes requests on to an S3 server, save those that lose decides to lose.
func proxy(t *testing.T, server *storetest.S3, lose func(*http.Request, func()) bool) store.Store {
	t.Helper()
	target, err := url.Parse(server.Options.S3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	// The Host header is signed: it must reach the server as the client sent it.
	pass := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lose(r, func() { pass.ServeHTTP(httptest.NewRecorder(), r) }) {
			panic(http.ErrAbortHandler) // cuts the connection without an answer
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	opts := server.Options
	opts.S3.Endpoint = front.URL
	s, err := store.Open(t.Context(), "s3://"+server.Bucket+"/proxied", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestS3LostAnswers: the connection breaks before a request reaches the server,
// and after the server has done it.
func TestS3LostAnswers(t *testing.T) {
	server := storetest.StartS3(t)
	var puts atomic.Int32
	direct := proxy(t, server, func(r *http.Request, perform func()) bool {
		if r.Method != http.MethodPut {
			return false
		}
		switch puts.Add(1) {
		case 1:
			return true
		case 2:
			perform()
			return true
		}
		return false
	})
	content := bytes.Repeat([]byte("pileus"), 200_000)
	err := direct.Put(t.Context(), "probe", bytes.NewReader(content))
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("a lost request: %v, want ErrUnavailable", err)
	}
	if n := puts.Load(); n != 1 {
		t.Fatalf("the library sent a conditional write %d times by itself", n)
	}
	puts.Store(0)
	s := store.WithRetry(direct, store.RetryPolicy{BaseDelay: time.Millisecond})
	if err := s.Put(t.Context(), "k", bytes.NewReader(content)); err != nil {
		t.Fatalf("put over lost answers: %v", err)
	}
	if n := puts.Load(); n != 2 {
		t.Errorf("%d uploads, want 2: the second has arrived", n)
	}
	puts.Store(1) // the next is performed, and its answer lost
	if err := direct.Put(t.Context(), "k", strings.NewReader("other")); !errors.Is(err, store.ErrExists) {
		t.Errorf("a refusal that was lost: %v, want ErrExists", err)
	}
}

// TestS3Down: a server that is gone is unavailable, never empty.
func TestS3Down(t *testing.T) {
	server := storetest.StartS3(t)
	s := server.Open(t, "")
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(server.Options.S3.Endpoint, "http://")
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the server outlives its kill")
		}
	}
	_, getErr := s.Get(t.Context(), "k", 0, -1)
	_, statErr := s.Stat(t.Context(), "k")
	var listErr error
	for _, err := range s.List(t.Context(), "") {
		listErr = err
	}
	for i, err := range []error{getErr, statErr, listErr, s.Put(t.Context(), "k", strings.NewReader("x")), s.Delete(t.Context(), "k")} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("call %d: %v, want ErrUnavailable", i, err)
		}
	}
}

func TestVerifyCreateOnly(t *testing.T) {
	server := storetest.StartS3(t)
	for name, s := range map[string]store.Store{"s3": server.Open(t, "v"), "local": openLocal(t), "mem": storetest.NewMem(t)} {
		if err := store.VerifyCreateOnly(t.Context(), s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for info := range s.List(t.Context(), "") {
			t.Errorf("%s: the probe left %s", name, info.Key)
		}
	}
	ignorant := proxy(t, server, func(r *http.Request, _ func()) bool {
		// A service that does not know the condition; the header is not signed away.
		r.Header.Del("If-None-Match")
		return false
	})
	if err := store.VerifyCreateOnly(t.Context(), ignorant); err == nil {
		t.Error("a service that replaces objects passed")
	}
}

func TestOpenRefuses(t *testing.T) {
	const secret = "hunter2"
	for _, c := range []struct{ url, says string }{
		{"s3://AKIA:" + secret + "@bucket/x", "credentials"},
		{"s3://AKIA:" + secret + "%zz@bucket/x", "cannot be parsed"},
		{"s3://bucket?secret_access_key=" + secret, "looks like a credential"},
		{"s3://bucket?X-Amz-Signature=" + secret, "looks like a credential"},
		{"azblob://box?sig=" + secret, "looks like a credential"},
		{"azblob://box?sv=" + secret, "unknown setting"},
		{"s3://bucket?regoin=" + secret, "unknown setting"},
		{"s3://bucket?endpoint=http://u:" + secret + "@h", "without credentials"},
		{"s3:///x", "no bucket"},
		{"s3://bucket/a//b", "prefix"},
		{"gs://bucket#" + secret, "fragment"},
		{"ftp://host/x", "unknown scheme"},
		{"relative/path", "absolute"},
		{"", "absolute"},
		{"file://host/x", "file:///"},
	} {
		_, err := store.Open(t.Context(), c.url, store.Options{})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want an error that says %q without the secret", c.url, err, c.says)
		}
	}
	dir := t.TempDir()
	for _, ok := range []string{dir, "file://" + dir} {
		s, err := store.Open(t.Context(), ok, store.Options{})
		if err != nil {
			t.Errorf("%s: %v", ok, err)
			continue
		}
		if err := s.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
}
