package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"gocloud.dev/blob/azureblob"
)

func openAzure(ctx context.Context, u *url.URL) (*bucketStore, error) {
	if _, err := checkQuery(u); err != nil {
		return nil, err
	}
	service, err := azureblob.NewServiceURL(azureblob.NewDefaultServiceURLOptions())
	if err != nil {
		return nil, fmt.Errorf("store azblob://%s: set AZURE_STORAGE_ACCOUNT: %w", u.Host, err)
	}
	client, err := azureblob.NewDefaultClient(service, azureblob.ContainerName(u.Host))
	if err != nil {
		return nil, fmt.Errorf("store azblob://%s: no Azure credentials; set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or a managed identity: %w", u.Host, err)
	}
	bucket, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, fmt.Errorf("store azblob://%s: %w", u.Host, err)
	}
	const write, read = "Microsoft.Storage/.../blobs/write", "Microsoft.Storage/.../blobs/read"
	return &bucketStore{bucket: bucket, provider: provider{
		label: fmt.Sprintf("Azure container %q", u.Host),
		proof: azureFailure,
		permissions: map[operation]string{
			opPut: write, opGet: read, opStat: read, opList: read, opDelete: "Microsoft.Storage/.../blobs/delete",
		},
		useMD5: true,
		oneAttempt: func(ctx context.Context) context.Context {
			return policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: -1})
		},
	}}, nil
}

func azureFailure(err error) failure {
	var f failure
	if response := (*azcore.ResponseError)(nil); errors.As(err, &response) {
		f.status, f.code = response.StatusCode, response.ErrorCode
	}
	switch bloberror.Code(f.code) {
	case bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet:
		f.status = 412 // Azure says 409 or 412 of one and the same thing
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted:
		f.noBucket = true
	case bloberror.BlobNotFound:
		f.noObject = true
	}
	return f
}
