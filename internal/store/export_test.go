package store

import (
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
)

// NewMemBucket opens the bucket store over the portable layer's memory driver:
// the way that Google Cloud Storage and Azure take, without their services.
func NewMemBucket(prefix string) Store {
	var bucket *blob.Bucket = memblob.OpenBucket(nil)
	return &bucketStore{bucket: bucket, prefix: prefix, provider: provider{
		label: "memory bucket", useMD5: true,
		proof: func(err error) failure {
			return failure{noObject: gcerrors.Code(err) == gcerrors.NotFound}
		},
	}}
}
