// Command demodb writes a small Trivy database from a file of advisories.
//
// Usage: demodb ADVISORIES.json DIRECTORY
//
// DIRECTORY gets trivy.db (the schema of the pinned trivy-db module) and metadata.json. Both
// say that the database is a demonstration: it knows a few facts and no more, so a clean
// result with it proves nothing about an image. The same advisories give the same bytes.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/types"
	bolt "go.etcd.io/bbolt"
)

const (
	version    = "1.0.0"
	maxBytes   = 1 << 20
	markBucket = "secure-pipeline demonstration"
)

type advisory struct {
	Package    string
	ID         string
	Fixed      string
	Vulnerable []string
	Patched    []string
	// Status is trivy's word for an advisory without a fix, such as "affected".
	Status string
	// Severity is the distribution's own rating for this package, where it has one.
	Severity string
}

type source struct {
	Bucket     string
	ID         types.SourceID
	Name       string
	URL        string
	Advisories []advisory
}

type vulnerability struct {
	Title    string
	Severity string
	// Rater is the source that rated the severity, such as "nvd" or "debian".
	Rater      types.SourceID
	References []string
}

type document struct {
	Updated         time.Time
	Sources         []source
	Vulnerabilities map[string]vulnerability
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("demodb", version)
		return
	}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: demodb ADVISORIES.json DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "demodb:", err)
		os.Exit(1)
	}
}

func run(input, directory string) error {
	doc, err := read(input)
	if err != nil {
		return fmt.Errorf("%s: %w", input, err)
	}
	// No fsync: a database that is not whole is never taken in.
	options := &bolt.Options{NoSync: true}
	if err := db.Init(directory, db.WithBoltOptions(options)); err != nil {
		return err
	}
	if err := fill(doc); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return writeMetadata(directory, doc.Updated)
}

func read(path string) (document, error) {
	var doc document
	stat, err := os.Stat(path)
	if err != nil {
		return doc, err
	}
	if stat.Size() > maxBytes {
		return doc, fmt.Errorf("larger than %d bytes", maxBytes)
	}
	file, err := os.Open(path)
	if err != nil {
		return doc, err
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&doc); err != nil {
		return doc, err
	}
	return doc, check(doc)
}

// check refuses a document that would give an empty or half-described database.
func check(doc document) error {
	if doc.Updated.IsZero() || len(doc.Sources) == 0 {
		return errors.New("Updated and Sources are needed")
	}
	for _, from := range doc.Sources {
		if from.Bucket == "" || len(from.Advisories) == 0 {
			return fmt.Errorf("source %q has no advisories", from.Bucket)
		}
		for _, item := range from.Advisories {
			if item.Package == "" {
				return fmt.Errorf("%s: an advisory names no package", from.Bucket)
			}
			if _, known := doc.Vulnerabilities[item.ID]; !known {
				return fmt.Errorf("%s: %q is not described", item.Package, item.ID)
			}
		}
	}
	return nil
}

// update runs one write in a transaction of its own. A transaction that touches two buckets
// gives them pages in the order of a Go map, and so other bytes each time.
func update(write func(tx *bolt.Tx) error) error {
	return db.Config{}.BatchUpdate(write)
}

func fill(doc document) error {
	for _, from := range doc.Sources {
		if err := putSource(from); err != nil {
			return fmt.Errorf("%s: %w", from.Bucket, err)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(doc.Vulnerabilities)) {
		write := func(tx *bolt.Tx) error { return putVulnerability(tx, id, doc.Vulnerabilities[id]) }
		if err := update(write); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte(markBucket))
		return err
	})
}

func putSource(from source) error {
	origin := types.DataSource{ID: from.ID, Name: from.Name, URL: from.URL}
	describe := func(tx *bolt.Tx) error {
		return db.Config{}.PutDataSource(tx, from.Bucket, origin)
	}
	if err := update(describe); err != nil {
		return err
	}
	for _, item := range from.Advisories {
		value, err := convert(item)
		if err != nil {
			return fmt.Errorf("%s %s: %w", item.Package, item.ID, err)
		}
		write := func(tx *bolt.Tx) error {
			return db.Config{}.PutAdvisory(tx, []string{from.Bucket, item.Package}, item.ID, value)
		}
		if err := update(write); err != nil {
			return err
		}
	}
	return nil
}

func convert(item advisory) (*types.Advisory, error) {
	value := &types.Advisory{
		FixedVersion:       item.Fixed,
		VulnerableVersions: item.Vulnerable,
		PatchedVersions:    item.Patched,
	}
	if item.Fixed == "" && len(item.Vulnerable) == 0 {
		if value.Status = types.NewStatus(item.Status); value.Status == types.StatusUnknown {
			return nil, fmt.Errorf("no fixed version, and status %q is not known", item.Status)
		}
	}
	if item.Severity == "" {
		return value, nil
	}
	var err error
	value.Severity, err = types.NewSeverity(item.Severity)
	return value, err
}

func putVulnerability(tx *bolt.Tx, id string, item vulnerability) error {
	severity, err := types.NewSeverity(item.Severity)
	if err != nil {
		return err
	}
	value := types.Vulnerability{
		Title:      item.Title,
		Severity:   item.Severity,
		References: item.References,
	}
	if severity != types.SeverityUnknown {
		value.VendorSeverity = types.VendorSeverity{item.Rater: severity}
	}
	return db.Config{}.PutVulnerability(tx, id, value)
}

func writeMetadata(directory string, updated time.Time) error {
	data, err := json.Marshal(map[string]any{
		"Version":       db.SchemaVersion,
		"UpdatedAt":     updated.UTC(),
		"NextUpdate":    updated.UTC(),
		"DownloadedAt":  updated.UTC(),
		"Demonstration": true,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "metadata.json"), data, 0o644)
}
