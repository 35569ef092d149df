// Command vault is the server of HashiCorp Vault with the few engines that the tests use:
// the server's own core, HTTP handler and file store; approle, jwt and kubernetes to log in;
// kv and transit.
//
// Usage: vault --version
//
//	vault -store DIRECTORY -certificate FILE -key FILE [-address HOST:PORT] [-plain]
//
// It writes one line, the address it listens on, once it answers; it starts sealed.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
	"github.com/hashicorp/go-kms-wrapping/wrappers/aead/v2"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/vault/seal"
	"github.com/hashicorp/vault/version"
)

var credentials = map[string]logical.Factory{
	"approle":    approle.Factory,
	"jwt":        jwt.Factory,
	"kubernetes": kubernetes.Factory,
}

var engines = map[string]logical.Factory{
	"kv":      kv.Factory,
	"transit": transit.Factory,
}

type options struct {
	store, certificate, key, address string
	plain                            bool
}

func main() {
	chosen, err := parse(os.Args[1:])
	if err == nil {
		err = serve(chosen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func parse(arguments []string) (options, error) {
	var chosen options
	flags := flag.NewFlagSet("vault", flag.ContinueOnError)
	shown := flags.Bool("version", false, "print the version")
	flags.StringVar(&chosen.store, "store", "", "directory of the store")
	flags.StringVar(&chosen.certificate, "certificate", "", "PEM file of the certificate")
	flags.StringVar(&chosen.key, "key", "", "PEM file of its key")
	flags.StringVar(&chosen.address, "address", "127.0.0.1:0", "where to listen")
	flags.BoolVar(&chosen.plain, "plain", false, "http instead of https")
	if err := flags.Parse(arguments); err != nil {
		return chosen, err
	}
	if *shown {
		fmt.Println("Vault", "v"+version.GetVersion().Version)
		os.Exit(0)
	}
	if chosen.store == "" {
		return chosen, fmt.Errorf("-store is needed")
	}
	return chosen, nil
}

func serve(chosen options) error {
	listener, err := listen(chosen)
	if err != nil {
		return err
	}
	core, err := newCore(chosen, listener.Addr().String())
	if err != nil {
		return err
	}
	// The handler bounds every request by what the listener says, as in Vault's own server.
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Type: "tcp", Address: chosen.address},
	})
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       5 * time.Minute,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Println(listener.Addr())
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM, os.Interrupt)
	select {
	case err := <-ended:
		return err
	case <-stopped:
		return core.Shutdown()
	}
}

func listen(chosen options) (net.Listener, error) {
	listener, err := net.Listen("tcp", chosen.address)
	if err != nil || chosen.plain {
		return listener, err
	}
	pair, err := tls.LoadX509KeyPair(chosen.certificate, chosen.key)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	}), nil
}

func newCore(chosen options, address string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	store, err := file.NewFileBackend(map[string]string{"path": chosen.store}, logger)
	if err != nil {
		return nil, err
	}
	shamir := aead.NewShamirWrapper()
	access, err := seal.NewAccessFromWrapper(logger, shamir, wrapping.WrapperTypeShamir.String())
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           store,
		StorageType:        "file",
		Seal:               vault.NewDefaultSeal(access),
		Logger:             logger,
		LogLevel:           "info",
		DisableMlock:       true,
		RedirectAddr:       "https://" + address,
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		CredentialBackends: credentials,
		LogicalBackends:    engines,
		BuiltinRegistry:    registry{},
	})
	// As the server's own command does: a core that is not initialised yet is no failure.
	if err != nil && !vault.IsFatalError(err) {
		return core, nil
	}
	return core, err
}
