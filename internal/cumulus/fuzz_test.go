package cumulus

import (
	"encoding/json"
	"testing"
)

func FuzzParseRule(f *testing.F) {
	for _, seed := range []string{
		`{"name":"r","state":"ENABLED","workflow":"W","rule":{"type":"kinesis","value":"s","arn":"u","logEventArn":"v"},"meta":{"a":[1]}}`,
		`{"name":"r","state":"DISABLED","rule":{"type":"onetime"}}`, `{"name":"KnexTimeoutError"}`, `{}`, `null`, `[]`, `{"name":1}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRule(text)
		if err != nil {
			return
		}
		if r.Name == "" || r.State != Enabled && r.State != Disabled {
			t.Fatalf("%+v is taken for a rule", r)
		}
		kept, err := json.Marshal(Record{Rule: r}) // as a journal keeps it
		if err != nil {
			t.Fatal(err)
		}
		var back Record
		if err := json.Unmarshal(kept, &back); err != nil || back.Rule.Name != r.Name || back.Rule.Rule != r.Rule || len(settings(back.Rule, r)) > 0 {
			t.Fatalf("%s comes back as %+v: %v", kept, back, err)
		}
	})
}

func FuzzPermits(f *testing.F) {
	for _, seed := range []string{
		`{"Statement":[{"Effect":"Allow","Condition":{"ArnLike":{"AWS:SourceArn":"topic"}}}]}`,
		`{"Statement":[{"Effect":"Allow","Condition":{"ArnEquals":{"aws:SourceArn":["other","topic"]}}}]}`,
		`{"Statement":[{"Effect":"Deny","Condition":{"ArnLike":{"AWS:SourceArn":"topic"}}}]}`, `{"Statement":{}}`, `{}`, ``,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, policy string) {
		if ok, err := permits(policy, "topic"); ok && err != nil {
			t.Fatal("permitted and an error")
		}
		if ok, _ := permits(policy, ""); ok && policy == "" {
			t.Fatal("nothing permits")
		}
	})
}

func TestPermits(t *testing.T) {
	for policy, want := range map[string]bool{
		`{"Statement":[{"Effect":"Allow","Condition":{"ArnLike":{"AWS:SourceArn":"topic"}}}]}`:             true,
		`{"Statement":[{"Effect":"Allow","Condition":{"ArnEquals":{"aws:SourceArn":["other","topic"]}}}]}`: true,
		`{"Statement":[{"Effect":"Deny","Condition":{"ArnLike":{"AWS:SourceArn":"topic"}}}]}`:              false,
		`{"Statement":[{"Effect":"Allow","Condition":{"ArnLike":{"AWS:SourceArn":"topics"}}}]}`:            false,
		`{"Statement":[{"Effect":"Allow"}]}`:                                                               false,
	} {
		if got, err := permits(policy, "topic"); err != nil || got != want {
			t.Errorf("%s: %v %v", policy, got, err)
		}
	}
}
