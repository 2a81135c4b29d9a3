package certificates

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// retry is the time between two tries after an error.
	retry = 10 * time.Second
	// again is the time after which a Secret is read again that another replica has just written.
	again = time.Second
)

// Keeper keeps the certificates of one replica of a server. Replicas share the Secret: each of them may write it, and
// only on top of what it has read, so that one wins and the others read what it wrote.
type Keeper struct {
	// Reader reads the Secret, Writer writes it. A Reader may be behind.
	Reader client.Reader
	Writer client.Writer
	Secret types.NamespacedName
	// Names under which clients know the server: host names and IP addresses.
	Names []string
	// Publish gives the clients a bundle, and says whether they had it already.
	Publish func(ctx context.Context, bundle []byte) (had bool, err error)
	// Changed says that the Secret, or what Publish looks at, may have changed.
	Changed <-chan struct{}
	Clock   clock.Clock

	serving atomic.Pointer[tls.Certificate]
	// bundle that the clients have had since a time, as far as this process knows.
	bundle string
	since  time.Time
}

// GetCertificate is for a tls.Config: what is to be served now.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := k.serving.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Start keeps the certificates until ctx is done. It fails never: without certificates the server answers nobody, which
// its clients must bear, and everything else goes on.
func (k *Keeper) Start(ctx context.Context) error {
	for {
		wait, err := k.keep(ctx)
		if err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "Webhook certificates", "secret", k.Secret)
			wait = retry
		}
		timer := k.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-k.Changed:
			timer.Stop()
		case <-timer.C():
		}
	}
}

// NeedLeaderElection says that every replica serves.
func (k *Keeper) NeedLeaderElection() bool { return false }

// keep does what is to be done now, and says after which time to look again.
func (k *Keeper) keep(ctx context.Context) (time.Duration, error) {
	now := k.Clock.Now()
	secret := &corev1.Secret{}
	if err := k.Reader.Get(ctx, k.Secret, secret); err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	read := Decode(secret.Data)
	set, err := read.Next(now, k.Names, k.settled(now, read))
	if err != nil {
		return 0, err
	}
	if set != read {
		err := k.write(ctx, secret, set)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			return again, nil // another replica was faster, or the Reader is behind
		}
		if err != nil {
			return 0, err
		}
		log.FromContext(ctx).Info("Wrote webhook certificates", "secret", k.Secret, "authorities", len(set.authorities), "expires", set.Serving().Leaf.NotAfter)
	}
	k.serving.Store(set.Serving())

	had, err := k.Publish(ctx, set.Bundle())
	if err != nil {
		return 0, fmt.Errorf("publish: %w", err)
	}
	k.note(now, set, had)
	wait := set.Wake(now).Sub(now)
	if set.Pending() {
		wait = min(wait, settling)
	}
	return wait, nil
}

// write stores the set on top of what was read.
func (k *Keeper) write(ctx context.Context, read *corev1.Secret, set *Set) error {
	if read.ResourceVersion == "" {
		return k.Writer.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: k.Secret.Namespace, Name: k.Secret.Name},
			Type:       corev1.SecretTypeTLS,
			Data:       set.Data(),
		})
	}
	secret := read.DeepCopy()
	secret.Data = set.Data()
	return k.Writer.Update(ctx, secret)
}

// settled says whether clients have had the bundle for long enough. Only what this process has seen itself counts.
func (k *Keeper) settled(now time.Time, set *Set) bool {
	return !k.since.IsZero() && k.bundle == string(set.Bundle()) && now.Sub(k.since) >= settling
}

func (k *Keeper) note(now time.Time, set *Set, had bool) {
	switch bundle := string(set.Bundle()); {
	case !had:
		k.bundle, k.since = "", time.Time{}
	case bundle != k.bundle:
		k.bundle, k.since = bundle, now
	}
}
