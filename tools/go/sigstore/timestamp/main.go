// Command timestamp is Sigstore's time-stamp authority for tests: its own REST service with a
// chain that it makes in memory, without the metrics that it serves on all addresses.
//
// Usage: timestamp [-host HOST] -port PORT
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/server"
	"github.com/spf13/viper"
)

const policy = "1.3.6.1.4.1.57264.2"

func main() {
	host := flag.String("host", "127.0.0.1", "where to listen")
	port := flag.Int("port", 0, "where to listen")
	flag.Parse()
	for name, value := range map[string]any{
		"timestamp-signer":      "memory",
		"timestamp-signer-hash": "sha256",
		"default-policy-oid":    policy,
		"accepted-policy-oids":  []string{policy},
		"max-request-body-size": 1 << 20,
	} {
		viper.Set(name, value)
	}
	service := server.NewRestAPIServer(
		*host, *port, []string{"http"}, false, 30*time.Second, 30*time.Second)
	if err := service.Serve(); err != nil {
		fmt.Fprintln(os.Stderr, "timestamp:", err)
		os.Exit(1)
	}
}
