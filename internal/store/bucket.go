package store

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"gocloud.dev/blob"
)

const (
	// singlePutLimit is the largest object sent in one request, in bytes. One
	// request is atomic and takes no memory; packs and WAL stay below it.
	singlePutLimit = 64 << 20
	// partSize and partsAtOnce bound what a larger upload holds in memory.
	partSize    = 16 << 20
	partsAtOnce = 3
	// maxParts stays under the 10,000 of S3, the lowest limit of the providers.
	maxParts = 9000

	contentType = "application/octet-stream"
)

// bucketStore keeps objects in a bucket of a cloud provider. It makes one attempt
// per call. Every Put is conditional on the key being free; one whose answer is
// lost counts as done when exactly its bytes are there.
type bucketStore struct {
	bucket   *blob.Bucket
	prefix   string // "" or "some/prefix/"
	provider provider
}

// provider is what differs between the clouds.
type provider struct {
	label string // such as `S3 bucket "b"`, for messages
	// proof reads what is known of an error that the provider answered.
	proof func(error) failure
	// permissions names what the user must be allowed to do, by operation.
	permissions map[operation]string
	// put uploads, and reports whether the service proved by a checksum that it
	// holds the same bytes. Nil: the portable way is taken.
	put func(ctx context.Context, name string, body *attemptBody) (proven bool, err error)
	// useMD5: the service checks an MD5 of the whole.
	useMD5 bool
	// oneAttempt stops the provider's library from repeating a request by
	// itself: its second attempt would find the object of its first.
	oneAttempt func(context.Context) context.Context
	// bucketGone: a look-up of one key cannot tell a missing bucket apart.
	bucketGone bool
}

var _ Store = (*bucketStore)(nil)

// Put implements Store.
func (b *bucketStore) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := checkGet(ctx, key, 0); err != nil {
		return err
	}
	loan, err := lendBody(body)
	if err != nil {
		return fmt.Errorf("write object %s: %w", key, err)
	}
	if loan.size > singlePutLimit {
		// Only the end of a long upload would say that the key is taken.
		switch _, err := b.Stat(ctx, key); {
		case err == nil:
			return fmt.Errorf("write object %s: %w", key, ErrExists)
		case !errors.Is(err, ErrNotFound):
			return fmt.Errorf("see whether object %s is there: %w", key, err)
		}
	}
	proven, err := b.upload(ctx, b.prefix+key, loan)
	if bodyErr := loan.take(); bodyErr != nil {
		return fmt.Errorf("write object %s: read its body: %w", key, bodyErr)
	}
	if err != nil {
		answered := b.provider.proof(err).status != 0
		err = b.mapError(ctx, opPut, key, err)
		if !answered && errors.Is(err, ErrUnavailable) {
			return b.afterSilence(ctx, key, body, loan, err)
		}
		if errors.Is(err, errConflict) {
			// Two writers met. Whether the other has won shows now.
			if _, statErr := b.Stat(ctx, key); statErr == nil {
				return fmt.Errorf("write object %s: %w", key, ErrExists)
			}
		}
		return err
	}
	if proven {
		return nil
	}
	info, err := b.Stat(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("write object %s: %s took it, but does not show it: %w", key, b.provider.label, ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("check the object just written: %w", err)
	}
	if info.Size != loan.size {
		return fmt.Errorf("write object %s: %s holds %d bytes of it after an upload of %d; check what lies between here and there",
			key, b.provider.label, info.Size, loan.size)
	}
	return nil
}

// afterSilence decides a Put that broke off without an answer, by what is there
// now. Besides a lost answer this is how a service looks that refuses a taken key
// and hangs up before it has read the body.
func (b *bucketStore) afterSilence(ctx context.Context, key string, body io.ReadSeeker, loan *attemptBody, putErr error) error {
	if _, err := body.Seek(loan.start, io.SeekStart); err != nil {
		return putErr
	}
	same, err := sameContent(ctx, b, key, body, loan.size)
	switch {
	case err != nil: // the object is not there, or cannot be asked for
		return putErr
	case same:
		return nil
	}
	return fmt.Errorf("write object %s: %w", key, ErrExists)
}

func (b *bucketStore) upload(ctx context.Context, name string, body *attemptBody) (proven bool, err error) {
	if b.provider.oneAttempt != nil {
		ctx = b.provider.oneAttempt(ctx)
	}
	if b.provider.put != nil {
		return b.provider.put(ctx, name, body)
	}
	opts := &blob.WriterOptions{
		IfNotExist:     true,
		ContentType:    contentType,
		BufferSize:     int(max(partSize, body.size/maxParts+1)),
		MaxConcurrency: partsAtOnce,
	}
	if b.provider.useMD5 {
		sum := md5.New()
		if _, err := io.Copy(sum, body); err != nil {
			return false, err
		}
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
		opts.ContentMD5 = sum.Sum(nil)
	}
	// A writer that is closed commits; only a cancelled context aborts it.
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	w, err := b.bucket.NewWriter(ctx, name, opts)
	if err != nil {
		return false, err
	}
	if n, err := io.Copy(w, body); err != nil || n != body.size {
		if err == nil {
			err = fmt.Errorf("the body gave %d bytes after announcing %d", n, body.size)
		}
		abort()
		_ = w.Close() // says again what Copy said
		return false, err
	}
	return false, w.Close()
}

// Get implements Store.
func (b *bucketStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := checkGet(ctx, key, offset); err != nil {
		return nil, err
	}
	if length == 0 {
		info, err := b.Stat(ctx, key)
		if err != nil {
			return nil, err
		}
		if offset > info.Size {
			return nil, shortObject(key, offset, length, info.Size)
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	r, err := b.bucket.NewRangeReader(ctx, b.prefix+key, offset, length, nil)
	if err != nil {
		return b.emptyOrShort(ctx, key, offset, length, b.mapError(ctx, opGet, key, err))
	}
	size := r.Size() // of the whole object
	if length < 0 {
		length = size - offset
	}
	if length < 0 || offset+length > size {
		r.Close()
		return nil, shortObject(key, offset, length, size)
	}
	return &exactReader{ReadCloser: &bucketReader{Reader: r, ctx: ctx, key: key}, key: key, want: length}, nil
}

// emptyOrShort explains a failed Get. Services refuse, each in its own words, a
// range that begins at or behind the object's end.
func (b *bucketStore) emptyOrShort(ctx context.Context, key string, offset, length int64, getErr error) (io.ReadCloser, error) {
	if errors.Is(getErr, ErrNotFound) || errors.Is(getErr, ErrUnavailable) && offset == 0 || ctx.Err() != nil {
		return nil, getErr
	}
	info, err := b.Stat(ctx, key)
	if err != nil || offset < info.Size {
		return nil, getErr
	}
	if offset == info.Size && length < 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	return nil, shortObject(key, offset, length, info.Size)
}

// bucketReader maps what breaks off a download.
type bucketReader struct {
	*blob.Reader
	ctx context.Context
	key string
}

func (r *bucketReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if ctxErr := r.ctx.Err(); ctxErr != nil {
		return n, fmt.Errorf("read object %s: %w", r.key, ctxErr)
	}
	return n, fmt.Errorf("read object %s: the download broke off: %w: %w", r.key, ErrUnavailable, err)
}

// Stat implements Store.
func (b *bucketStore) Stat(ctx context.Context, key string) (Info, error) {
	if err := checkGet(ctx, key, 0); err != nil {
		return Info{}, err
	}
	attrs, err := b.bucket.Attributes(ctx, b.prefix+key)
	if err != nil {
		err = b.mapError(ctx, opStat, key, err)
		if errors.Is(err, ErrNotFound) && b.provider.bucketGone {
			// The answer to a HEAD has no body to say what is not found.
			for _, listErr := range b.List(ctx, key) {
				if listErr != nil {
					return Info{}, listErr
				}
				break
			}
		}
		return Info{}, err
	}
	return Info{Key: key, Size: attrs.Size, Modified: attrs.ModTime}, nil
}

// List implements Store. Objects of others, whose names are no keys, are passed by.
func (b *bucketStore) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := checkPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		objects := b.bucket.List(&blob.ListOptions{Prefix: b.prefix + prefix})
		last := ""
		for {
			if err := ctx.Err(); err != nil {
				yield(Info{}, err) // a page that is here already would hide it
				return
			}
			object, err := objects.Next(ctx)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Info{}, b.mapError(ctx, opList, prefix, err))
				return
			}
			key := strings.TrimPrefix(object.Key, b.prefix)
			if CheckKey(key) != nil || object.IsDir {
				continue
			}
			if key <= last {
				yield(Info{}, fmt.Errorf("%s lists %q after %q; it must list in the order of the names (an S3 directory bucket cannot be used)", b.provider.label, key, last))
				return
			}
			last = key
			if !yield(Info{Key: key, Size: object.Size, Modified: object.ModTime}, nil) {
				return
			}
		}
	}
}

// Delete implements Store.
func (b *bucketStore) Delete(ctx context.Context, key string) error {
	if err := checkGet(ctx, key, 0); err != nil {
		return err
	}
	err := b.bucket.Delete(ctx, b.prefix+key)
	if err == nil {
		return nil
	}
	if err = b.mapError(ctx, opDelete, key, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
