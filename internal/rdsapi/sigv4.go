package rdsapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pileus/internal/access"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	service    = "rds"
	terminator = "aws4_request"
	dateLayout = "20060102T150405Z"
	maxSkew    = 5 * time.Minute
)

// Keys finds access keys.
type Keys interface {
	Lookup(id string) (access.Key, bool)
}

// authorization is the header of that name, taken apart.
type authorization struct {
	keyID, date, region, service string
	headers                      []string // lower case, sorted
	signature                    string   // hexadecimal
}

// parseAuthorization reads
//
//	AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=HEX
func parseAuthorization(header string) (authorization, bool) {
	var a authorization
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return a, false
	}
	fields := map[string]string{}
	for _, part := range strings.Split(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := fields[name]; !ok || twice {
			return a, false
		}
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(fields) != 3 || len(scope) != 5 || scope[4] != terminator || fields["SignedHeaders"] == "" || len(fields["Signature"]) != 2*sha256.Size {
		return a, false
	}
	a.keyID, a.date, a.region, a.service = scope[0], scope[1], scope[2], scope[3]
	a.headers, a.signature = strings.Split(fields["SignedHeaders"], ";"), fields["Signature"]
	if !slices.IsSorted(a.headers) {
		return a, false
	}
	return a, true
}

// authenticate tells whose request it is. body is its whole body.
func (a *API) authenticate(r *http.Request, body []byte) (access.Key, *problem) {
	var none access.Key
	header := r.Header.Get("Authorization")
	if header == "" {
		if r.URL.Query().Has("X-Amz-Signature") {
			return none, &problem{"IncompleteSignature", http.StatusBadRequest, "Sign in the Authorization header: presigned requests are not taken."}
		}
		return none, &problem{"MissingAuthenticationToken", http.StatusForbidden, "Request is missing Authentication Token"}
	}
	auth, ok := parseAuthorization(header)
	if !ok {
		return none, &problem{"IncompleteSignature", http.StatusBadRequest, "The Authorization header must be an " + algorithm + " signature with Credential, SignedHeaders and Signature."}
	}
	key, ok := a.o.Keys.Lookup(auth.keyID)
	if !ok {
		return none, &problem{"InvalidClientTokenId", http.StatusForbidden, "The security token included in the request is invalid."}
	}
	mismatch := func(why string) (access.Key, *problem) {
		return none, &problem{"SignatureDoesNotMatch", http.StatusForbidden, why}
	}
	at, err := time.Parse(dateLayout, r.Header.Get("X-Amz-Date"))
	switch {
	case err != nil:
		return none, &problem{"IncompleteSignature", http.StatusBadRequest, "The header X-Amz-Date must be there, like 20150830T123600Z."}
	case auth.date != at.Format("20060102"):
		return mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	case auth.region != a.o.Region:
		return mismatch("Credential should be scoped to a valid region: this service is in " + a.o.Region + ".")
	case auth.service != service:
		return mismatch("Credential should be scoped to correct service: '" + service + "'.")
	}
	if !slices.Contains(auth.headers, "host") || !slices.Contains(auth.headers, "x-amz-date") {
		return mismatch("The headers host and x-amz-date must be signed.")
	}
	for name := range r.Header { // what could change the meaning of the request has to be signed
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") && !slices.Contains(auth.headers, lower) {
			return mismatch("The header " + lower + " must be signed.")
		}
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if said := r.Header.Get("X-Amz-Content-Sha256"); said != "" && said != hash {
		return mismatch("The header X-Amz-Content-Sha256 does not match the body.")
	}
	want := sign(key.Secret, auth, at, canonical(r, auth.headers, hash))
	if subtle.ConstantTimeCompare([]byte(want), []byte(auth.signature)) != 1 {
		return mismatch("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	}
	if skew := a.o.Now().Sub(at).Abs(); skew > maxSkew { // told only to who has the key
		return none, &problem{"RequestExpired", http.StatusBadRequest, "Signature not yet current or expired: " + at.Format(dateLayout) + " is " + skew.Round(time.Second).String() + " away from the time here, " + a.o.Now().UTC().Format(dateLayout) + ". Check the clocks."}
	}
	return key, nil
}

// sign computes a signature, in hexadecimal.
func sign(secret string, auth authorization, at time.Time, request string) string {
	sum := sha256.Sum256([]byte(request))
	text := strings.Join([]string{algorithm, at.Format(dateLayout), strings.Join([]string{auth.date, auth.region, auth.service, terminator}, "/"), hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{auth.date, auth.region, auth.service, terminator} {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, text))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical is the request in the one form that both sides sign.
func canonical(r *http.Request, headers []string, bodyHash string) string {
	var b strings.Builder
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	b.WriteString(r.Method + "\n" + path + "\n" + canonicalQuery(r.URL.Query()) + "\n")
	for _, name := range headers {
		var values []string
		switch name { // net/http keeps these two elsewhere
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		default:
			values = r.Header.Values(name)
		}
		trimmed := make([]string, len(values))
		for i, v := range values {
			trimmed[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(name + ":" + strings.Join(trimmed, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(headers, ";") + "\n" + bodyHash)
	return b.String()
}

func canonicalQuery(q url.Values) string {
	var parts []string
	for k, vs := range q {
		for _, v := range vs {
			parts = append(parts, escape(k)+"="+escape(v))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

// escape is RFC 3986's, as signatures use it.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
