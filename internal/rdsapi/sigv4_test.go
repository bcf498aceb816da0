package rdsapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"pileus/internal/access"
)

// keyring is one key.
type keyring access.Key

func (k keyring) Lookup(id string) (access.Key, bool) { return access.Key(k), id == k.ID }

var (
	signedAt = time.Date(2026, 3, 7, 23, 45, 0, 0, time.UTC)
	ring     = keyring{ID: "PILEKEY", Secret: "secret", Role: access.Operator}
)

func newAPI() *API {
	return New(Options{Keys: ring, Region: "us-east-1", Account: "000000000000", Now: func() time.Time { return signedAt }})
}

// signed is a request as AWS's own SDK signs it.
func signed(t testing.TB, body string, key keyring, region, service string, at time.Time, headers map[string]string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8432/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret}, r, hex.EncodeToString(sum[:]), service, region, at); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignatures(t *testing.T) {
	const body = "Action=DescribeDBClusters&Version=2014-10-31"
	good := func() *http.Request { return signed(t, body, ring, "us-east-1", "rds", signedAt, nil) }
	for name, c := range map[string]struct {
		r    *http.Request
		body string
		code string // "": let in
	}{
		"good":             {good(), body, ""},
		"with headers":     {signed(t, body, ring, "us-east-1", "rds", signedAt, map[string]string{"X-Amz-Thing": "  a   b ", "Accept": "x"}), body, ""},
		"four minutes off": {signed(t, body, ring, "us-east-1", "rds", signedAt.Add(-4*time.Minute), nil), body, ""},
		"too old":          {signed(t, body, ring, "us-east-1", "rds", signedAt.Add(-6*time.Minute), nil), body, "RequestExpired"},
		"of the future":    {signed(t, body, ring, "us-east-1", "rds", signedAt.Add(6*time.Minute), nil), body, "RequestExpired"},
		"wrong secret":     {signed(t, body, keyring{ID: ring.ID, Secret: "other"}, "us-east-1", "rds", signedAt, nil), body, "SignatureDoesNotMatch"},
		"old and wrong":    {signed(t, body, keyring{ID: ring.ID, Secret: "other"}, "us-east-1", "rds", signedAt.Add(-time.Hour), nil), body, "SignatureDoesNotMatch"},
		"unknown key":      {signed(t, body, keyring{ID: "PILEOTHER", Secret: "secret"}, "us-east-1", "rds", signedAt, nil), body, "InvalidClientTokenId"},
		"another region":   {signed(t, body, ring, "eu-west-1", "rds", signedAt, nil), body, "SignatureDoesNotMatch"},
		"another service":  {signed(t, body, ring, "us-east-1", "s3", signedAt, nil), body, "SignatureDoesNotMatch"},
		"another body":     {good(), body + "&DBClusterIdentifier=x", "SignatureDoesNotMatch"},
		"another method":   {changed(good(), func(r *http.Request) { r.Method = http.MethodPut }), body, "SignatureDoesNotMatch"},
		"another path":     {changed(good(), func(r *http.Request) { r.URL.Path = "/x" }), body, "SignatureDoesNotMatch"},
		"another query":    {changed(good(), func(r *http.Request) { r.URL.RawQuery = "x=1" }), body, "SignatureDoesNotMatch"},
		"another host":     {changed(good(), func(r *http.Request) { r.Host = "elsewhere" }), body, "SignatureDoesNotMatch"},
		"another time":     {changed(good(), func(r *http.Request) { r.Header.Set("X-Amz-Date", "20260307T234501Z") }), body, "SignatureDoesNotMatch"},
		"another day":      {changed(good(), func(r *http.Request) { r.Header.Set("X-Amz-Date", "20260308T000000Z") }), body, "SignatureDoesNotMatch"},
		"a header more":    {changed(good(), func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }), body, "SignatureDoesNotMatch"},
		"a hash that lies": {changed(good(), func(r *http.Request) {
			r.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64))
		}), body, "SignatureDoesNotMatch"},
		"no date":      {changed(good(), func(r *http.Request) { r.Header.Del("X-Amz-Date") }), body, "IncompleteSignature"},
		"no signature": {changed(good(), func(r *http.Request) { r.Header.Del("Authorization") }), body, "MissingAuthenticationToken"},
		"presigned":    {changed(good(), func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "X-Amz-Signature=0" }), body, "IncompleteSignature"},
		"basic":        {changed(good(), func(r *http.Request) { r.Header.Set("Authorization", "Basic eDp5") }), body, "IncompleteSignature"},
		"unsigned host": {changed(good(), func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";host;", ";", 1))
		}), body, "SignatureDoesNotMatch"},
	} {
		t.Run(name, func(t *testing.T) {
			key, p := newAPI().authenticate(c.r, []byte(c.body))
			switch {
			case c.code == "" && (p != nil || key != access.Key(ring)):
				t.Errorf("refused: %v", p)
			case c.code != "" && (p == nil || p.code != c.code || key != access.Key{}):
				t.Errorf("%+v, want %s", p, c.code)
			}
		})
	}
}

func changed(r *http.Request, change func(*http.Request)) *http.Request {
	change(r)
	return r
}

// TestUnauthenticatedRequestsLearnNothing sends what needs no key and looks at the answers.
func TestUnauthenticatedRequestsLearnNothing(t *testing.T) {
	api := httptest.NewServer(New(Options{Keys: ring, Region: "us-east-1", Log: quiet()}))
	defer api.Close()
	for name, c := range map[string]struct {
		body   io.Reader
		status int
		says   string
	}{
		"nothing":   {nil, http.StatusForbidden, "MissingAuthenticationToken"},
		"an action": {strings.NewReader("Action=DescribeDBClusters&Version=2014-10-31"), http.StatusForbidden, "MissingAuthenticationToken"},
		"too much":  {bytes.NewReader(make([]byte, maxBody+1)), http.StatusRequestEntityTooLarge, "RequestEntityTooLarge"},
	} {
		resp, err := http.Post(api.URL, "application/x-www-form-urlencoded", c.body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(text), "<Code>"+c.says+"</Code>") {
			t.Errorf("%s: %d %s %v", name, resp.StatusCode, text, err)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=PILEKEY/20260307/us-east-1/rds/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("a", 64))
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=;, Signature=")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header["Authorization"] = []string{header}
		r.Header.Set("X-Amz-Date", signedAt.Format(dateLayout))
		if key, p := newAPI().authenticate(r, nil); p == nil {
			t.Fatalf("%q was let in as %s", header, key.ID)
		}
	})
}

// TestMalformed: who has a key is told what is wrong with the form of a request.
func TestMalformed(t *testing.T) {
	s := newSDK(t, ring)
	s.api.o.Now = func() time.Time { return signedAt }
	ended, end := context.WithCancel(t.Context())
	end()
	ask := func(body string) *http.Request { return signed(t, body, ring, "us-east-1", "rds", signedAt, nil) }
	s.fleet.err = context.Canceled
	for name, c := range map[string]struct {
		r      *http.Request
		status int
		code   string
	}{
		"no action":          {ask("Version=2014-10-31"), http.StatusBadRequest, "MissingAction"},
		"another version":    {ask("Action=DescribeDBClusters&Version=2014-09-01"), http.StatusBadRequest, "NoSuchVersion"},
		"no form":            {ask("Action=%zz"), http.StatusBadRequest, "MalformedQueryString"},
		"JSON":               {signed(t, "{}", ring, "us-east-1", "rds", signedAt, map[string]string{"Content-Type": "application/json"}), http.StatusBadRequest, "MalformedQueryString"},
		"half a body":        {changed(ask("x"), func(r *http.Request) { r.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)) }), http.StatusBadRequest, "IncompleteBody"},
		"while it is ending": {ask("Action=StartDBCluster&Version=2014-10-31&DBClusterIdentifier=x").WithContext(ended), http.StatusServiceUnavailable, "ServiceUnavailable"},
	} {
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, c.r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), "<Code>"+c.code+"</Code>") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
