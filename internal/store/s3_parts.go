package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

// abortTimeout bounds the clean-up after a failed upload, which goes on when the
// caller's context has ended: abandoned parts cost money until somebody looks.
const abortTimeout = 15 * time.Second

// s3PutParts sends a large object in parts. Nothing is visible until the last
// request, which is conditional like that of a small object, and whose answer
// alone decides. At most partsAtOnce parts are in memory.
func s3PutParts(ctx context.Context, client *s3.Client, bucket, name string, body *attemptBody) error {
	created, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: aws.String(bucket), Key: aws.String(name), ContentType: aws.String(contentType),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
	})
	if err != nil {
		return err
	}
	parts, err := s3UploadParts(ctx, client, bucket, name, created.UploadId, body)
	if err == nil {
		_, err = client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: aws.String(bucket), Key: aws.String(name), UploadId: created.UploadId, IfNoneMatch: aws.String("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
	}
	if err == nil {
		return nil
	}
	abortCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	// It fails when the lost answer to the completion was "done": then there is
	// nothing to abort. What the caller must hear is err.
	_, _ = client.AbortMultipartUpload(abortCtx, &s3.AbortMultipartUploadInput{
		Bucket: aws.String(bucket), Key: aws.String(name), UploadId: created.UploadId,
	})
	return err
}

func s3UploadParts(ctx context.Context, client *s3.Client, bucket, name string, upload *string, body *attemptBody) ([]types.CompletedPart, error) {
	size := max(partSize, body.size/maxParts+1)
	parts := make([]types.CompletedPart, (body.size+size-1)/size)
	// Unlike the completion, a part may be sent again without harm.
	again := func(o *s3.Options) { o.Retryer = retry.NewStandard() }

	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce - 1) // one more is being read
	table := crc32.MakeTable(crc32.Castagnoli)
	var readErr error
	for i := range parts {
		if groupCtx.Err() != nil {
			break // a part has failed: Wait says how
		}
		part := make([]byte, min(size, body.size-int64(i)*size))
		if _, readErr = io.ReadFull(body, part); readErr != nil {
			readErr = fmt.Errorf("read part %d of the body: %w", i+1, readErr)
			break
		}
		group.Go(func() error {
			sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(part, table)))
			number := aws.Int32(int32(i + 1))
			out, err := client.UploadPart(groupCtx, &s3.UploadPartInput{
				Bucket: aws.String(bucket), Key: aws.String(name), UploadId: upload, PartNumber: number,
				Body: bytes.NewReader(part), ContentLength: aws.Int64(int64(len(part))), ChecksumCRC32C: aws.String(sum),
			}, again)
			if err != nil {
				return err
			}
			parts[i] = types.CompletedPart{ETag: out.ETag, PartNumber: number, ChecksumCRC32C: out.ChecksumCRC32C}
			return nil
		})
	}
	if err := errors.Join(readErr, group.Wait()); err != nil {
		return nil, err
	}
	return parts, ctx.Err() // a cancelled loop has left parts out
}
