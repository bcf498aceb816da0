package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// Secret tells which version of a secret names the new cluster. The one before can be made current again.
type Secret struct {
	ID  string `json:"id"`
	Old string `json:"old_version"`
	New string `json:"new_version"`
}

// pointSecret writes a new version of the configured secret that names a cluster, and keeps every other key as it is. Done
// twice, it makes no further version.
func (w *work) pointSecret(ctx context.Context, at Place) (*Secret, error) {
	id := w.env.c.Cutover.Secret
	api := secretsmanager.NewFromConfig(w.env.aws)
	now, err := api.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		return nil, fmt.Errorf("read the secret %s: %w", id, err)
	}
	var old Secret
	err = w.found(ctx, "secret", "the secret's version", &old, func() error {
		old = Secret{ID: id, Old: aws.ToString(now.VersionId)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	text, changed, err := pointed(aws.ToString(now.SecretString), at)
	if err != nil {
		return nil, fmt.Errorf("the secret %s: %w", id, err)
	}
	old.New = aws.ToString(now.VersionId)
	if !changed {
		return &old, nil
	}
	put, err := api.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &id, SecretString: &text})
	if err != nil {
		return nil, fmt.Errorf("write the secret %s: %w", id, err)
	}
	old.New = aws.ToString(put.VersionId)
	again, err := api.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		return nil, fmt.Errorf("read the secret %s again: %w", id, err)
	}
	if aws.ToString(again.SecretString) != text {
		return nil, fmt.Errorf("the secret %s is not what was written: somebody else writes it", id)
	}
	return &old, nil
}

// pointed puts a place into a secret's JSON. port is changed only where there is one, and stays text where it is text.
func pointed(secret string, at Place) (text string, changed bool, err error) {
	d := json.NewDecoder(bytes.NewReader([]byte(secret)))
	d.UseNumber() // numbers stay as they are written
	keys := map[string]any{}
	if err := d.Decode(&keys); err != nil {
		return "", false, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if _, ok := keys["host"]; !ok {
		return "", false, fmt.Errorf("it has no key host")
	}
	if keys["host"] != any(at.Host) {
		keys["host"], changed = at.Host, true
	}
	port := strconv.Itoa(at.Port)
	switch was := keys["port"].(type) {
	case string:
		keys["port"], changed = port, changed || was != port
	case json.Number:
		keys["port"], changed = json.Number(port), changed || was.String() != port
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a password stays readable
	err = e.Encode(keys)
	return strings.TrimSuffix(b.String(), "\n"), changed, err
}
