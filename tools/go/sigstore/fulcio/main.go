// Command fulcio is Sigstore's certificate authority for tests: its own gRPC service, issuers,
// file CA and gateway, without the key services of clouds and on one loopback address.
//
// Usage: fulcio -config FILE -certificate FILE -key FILE -password TEXT -ct-log URL
// -ct-log-key FILE [-address HOST:PORT]
//
// It writes one line, the address it listens on, once it answers.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	ctclient "github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/sigstore/fulcio/pkg/ca/fileca"
	"github.com/sigstore/fulcio/pkg/config"
	"github.com/sigstore/fulcio/pkg/generated/protobuf"
	"github.com/sigstore/fulcio/pkg/server"
	v1 "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/grpc/metadata"
)

const maxBytes = 4 << 20

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fulcio:", err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	flags := flag.NewFlagSet("fulcio", flag.ContinueOnError)
	issuers := flags.String("config", "", "Fulcio's own configuration of issuers")
	certificate := flags.String("certificate", "", "PEM file of the authority's chain")
	key := flags.String("key", "", "PEM file of its encrypted key")
	password := flags.String("password", "", "what opens the key")
	ctLog := flags.String("ct-log", "", "URL of the certificate transparency log")
	ctKey := flags.String("ct-log-key", "", "PEM file of that log's public key")
	address := flags.String("address", "127.0.0.1:0", "where to listen")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	cfg, err := config.Load(*issuers)
	if err != nil {
		return err
	}
	authority, err := fileca.NewFileCA(*certificate, *key, *password, false)
	if err != nil {
		return err
	}
	log, err := logClient(*ctLog, *ctKey)
	if err != nil {
		return err
	}
	algorithms, err := signature.NewAlgorithmRegistryConfig(
		[]v1.PublicKeyDetails{v1.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256})
	if err != nil {
		return err
	}
	service := server.NewGRPCCAServer(log, authority, algorithms, server.NewIssuerPool(cfg))
	mux := runtime.NewServeMux(runtime.WithMetadata(tokenOf))
	if err := protobuf.RegisterCAHandlerServer(context.Background(), mux, service); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	return (&http.Server{
		Handler:           withConfig(server.WithMaxBytes(mux, maxBytes), cfg),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
	}).Serve(listener)
}

// withConfig lets every request see the issuers, as Fulcio's own interceptor does.
func withConfig(handler http.Handler, cfg *config.FulcioConfig) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		handler.ServeHTTP(answer, request.WithContext(config.With(request.Context(), cfg)))
	})
}

// tokenOf hands over the identity token, which comes as a bearer token.
func tokenOf(_ context.Context, request *http.Request) metadata.MD {
	token := strings.TrimPrefix(request.Header.Get("Authorization"), "Bearer ")
	return metadata.Pairs(server.MetadataOIDCTokenKey, token)
}

func logClient(url, keyFile string) (*ctclient.LogClient, error) {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 30 * time.Second}
	return ctclient.New(url, client, jsonclient.Options{PublicKey: string(key)})
}
