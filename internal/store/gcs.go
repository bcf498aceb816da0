package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/googleapi"
)

func openGCS(ctx context.Context, u *url.URL) (*bucketStore, error) {
	if _, err := checkQuery(u); err != nil {
		return nil, err
	}
	client := gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())
	// The emulator of Google's own tools takes no credentials.
	if os.Getenv("STORAGE_EMULATOR_HOST") == "" {
		creds, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("store gs://%s: no Google credentials; set GOOGLE_APPLICATION_CREDENTIALS or give the machine a service account: %w", u.Host, err)
		}
		if client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(creds)); err != nil {
			return nil, fmt.Errorf("store gs://%s: %w", u.Host, err)
		}
	}
	bucket, err := gcsblob.OpenBucket(ctx, client, u.Host, nil)
	if err != nil {
		return nil, fmt.Errorf("store gs://%s: %w", u.Host, err)
	}
	var native *storage.Client
	if !bucket.As(&native) {
		return nil, fmt.Errorf("store gs://%s: the library hides its client, so its retries cannot be switched off", u.Host)
	}
	native.SetRetry(storage.WithPolicy(storage.RetryNever)) // see provider.oneAttempt
	return &bucketStore{bucket: bucket, provider: provider{
		label: fmt.Sprintf("Google Cloud Storage bucket %q", u.Host),
		proof: gcsFailure,
		permissions: map[operation]string{
			opPut: "storage.objects.create", opGet: "storage.objects.get and storage.objects.list", opStat: "storage.objects.get and storage.objects.list",
			opList: "storage.objects.list", opDelete: "storage.objects.delete",
		},
		useMD5: true,
	}}, nil
}

func gcsFailure(err error) failure {
	var f failure
	if api := (*googleapi.Error)(nil); errors.As(err, &api) {
		f.status = api.Code
	}
	f.noBucket = errors.Is(err, storage.ErrBucketNotExist)
	f.noObject = errors.Is(err, storage.ErrObjectNotExist)
	return f
}
