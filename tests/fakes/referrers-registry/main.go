// Serves an in-memory OCI 1.1 registry, with the referrers API, on the address given.
//
// The library lists referrers but does not say OCI-Subject, and knows no conditional requests;
// both are added here, as the specification has them, unless "bare" is given as well.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

var writing sync.Mutex

func main() {
	handler := registry.New(
		registry.WithReferrersSupport(true),
		registry.Logger(log.New(io.Discard, "", 0)),
	)
	if len(os.Args) < 3 {
		handler = conforming(handler)
	}
	log.Fatal(http.ListenAndServe(os.Args[1], handler))
}

func conforming(next http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if !strings.Contains(request.URL.Path, "/manifests/") {
			next.ServeHTTP(answer, request)
			return
		}
		switch request.Method {
		case http.MethodGet:
			if etag := present(next, request.URL.Path); etag != "" {
				answer.Header().Set("ETag", etag)
			}
		case http.MethodPut:
			writing.Lock()
			defer writing.Unlock()
			wanted := request.Header.Get("If-Match")
			if wanted != "" && wanted != present(next, request.URL.Path) {
				answer.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			body, _ := io.ReadAll(io.LimitReader(request.Body, 8<<20))
			request.Body = io.NopCloser(bytes.NewReader(body))
			if subject := subjectOf(body); subject != "" {
				answer.Header().Set("OCI-Subject", subject)
			}
		}
		next.ServeHTTP(answer, request)
	})
}

func present(next http.Handler, path string) string {
	recorder := httptest.NewRecorder()
	next.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	if recorder.Code != http.StatusOK {
		return ""
	}
	return fmt.Sprintf("%q", fmt.Sprintf("sha256:%x", sha256.Sum256(recorder.Body.Bytes())))
}

func subjectOf(body []byte) string {
	var manifest struct {
		Subject *struct {
			Digest string `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(body, &manifest) != nil || manifest.Subject == nil {
		return ""
	}
	return manifest.Subject.Digest
}
