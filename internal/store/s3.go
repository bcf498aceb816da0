package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"gocloud.dev/blob/s3blob"
)

func openS3(ctx context.Context, u *url.URL, opts S3Options) (*bucketStore, error) {
	opts, err := s3Settings(u, opts)
	if err != nil {
		return nil, err
	}
	load := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),
		// Repeating a conditional write makes it fail on its own success;
		// WithRetry knows that, the SDK does not.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
	}
	if opts.Region != "" {
		load = append(load, config.WithRegion(opts.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("store s3://%s: load the AWS settings: %w", u.Host, err)
	}
	if cfg.Region == "" {
		if opts.Endpoint == "" && cfg.BaseEndpoint == nil {
			return nil, fmt.Errorf("store s3://%s: no region; set it in the configuration, in the URL (?region=...) or in AWS_REGION", u.Host)
		}
		cfg.Region = "us-east-1" // what self-hosted services call their only one
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
		o.UsePathStyle = opts.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	bucket, err := s3blob.OpenBucket(ctx, client, u.Host, &s3blob.Options{RequestChecksumCalculation: cfg.RequestChecksumCalculation})
	if err != nil {
		return nil, fmt.Errorf("store s3://%s: %w", u.Host, err)
	}
	plainHTTP := strings.HasPrefix(strings.ToLower(aws.ToString(client.Options().BaseEndpoint)), "http:")
	return &bucketStore{bucket: bucket, provider: provider{
		label: fmt.Sprintf("S3 bucket %q", u.Host),
		proof: s3Failure,
		permissions: map[operation]string{
			opPut: "s3:PutObject", opGet: "s3:GetObject and s3:ListBucket", opStat: "s3:GetObject and s3:ListBucket",
			opList: "s3:ListBucket", opDelete: "s3:DeleteObject and s3:GetObject",
		},
		put: func(ctx context.Context, name string, body *attemptBody) (bool, error) {
			if body.size > singlePutLimit {
				return false, s3PutParts(ctx, client, u.Host, name, body)
			}
			return s3PutWhole(ctx, client, u.Host, name, body, plainHTTP)
		},
		bucketGone: true,
	}}, nil
}

// s3Settings merges the URL's query into opts.
func s3Settings(u *url.URL, opts S3Options) (S3Options, error) {
	query, err := checkQuery(u, "region", "endpoint", "use_path_style")
	if err != nil {
		return opts, err
	}
	if v := query.Get("region"); v != "" {
		opts.Region = v
	}
	if v := query.Get("endpoint"); v != "" {
		opts.Endpoint = v
	}
	if v := query.Get("use_path_style"); v != "" {
		if opts.PathStyle, err = strconv.ParseBool(v); err != nil {
			return opts, fmt.Errorf("store URL %s: use_path_style is true or false, not %q", u, v)
		}
	}
	if opts.Endpoint != "" {
		e, err := url.Parse(opts.Endpoint)
		if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
			return opts, fmt.Errorf("store s3://%s: the endpoint must be like https://host:port, without credentials", u.Host)
		}
	}
	return opts, nil
}

// s3PutWhole sends the object in one conditional request. Its CRC-32C travels as
// a header, which S3 compares with what arrived; a service that answers with the
// same sum has proved that it did.
func s3PutWhole(ctx context.Context, client *s3.Client, bucket, name string, body *attemptBody, plainHTTP bool) (bool, error) {
	hash := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(hash, body); err != nil {
		return false, err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, hash.Sum32()))
	out, err := client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucket), Key: aws.String(name), IfNoneMatch: aws.String("*"),
		Body: body, ContentLength: aws.Int64(body.size), ContentType: aws.String(contentType),
		ChecksumCRC32C: aws.String(sum),
	}, func(o *s3.Options) {
		if !plainHTTP {
			// TLS and the CRC guard the body already; signing would hash it again.
			o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
		}
	})
	if err != nil {
		return false, err
	}
	return aws.ToString(out.ChecksumCRC32C) == sum, nil
}

func s3Failure(err error) failure {
	var f failure
	if response := (*awshttp.ResponseError)(nil); errors.As(err, &response) {
		f.status = response.HTTPStatusCode()
	}
	if api := smithy.APIError(nil); errors.As(err, &api) {
		f.code = api.ErrorCode()
	}
	f.noBucket = f.code == "NoSuchBucket"
	f.noObject = f.status == 404 && (f.code == "NoSuchKey" || f.code == "NotFound")
	return f
}
