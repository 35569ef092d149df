// A collector that is not ours: OpenTelemetry's receiver of Splunk's protocol, with its
// acknowledgements. It writes every event that it has taken as a line of JSON to stdout.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/ackextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/splunkhecreceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

type event struct {
	Time     float64        `json:"time"`
	Event    string         `json:"event"`
	Fields   map[string]any `json:"fields"`
	Metadata map[string]any `json:"metadata"`
}

type host map[component.ID]component.Component

func (h host) GetExtensions() map[component.ID]component.Component { return h }

func write(_ context.Context, logs plog.Logs) error {
	out := json.NewEncoder(os.Stdout)
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				if err := out.Encode(event{
					Time:     float64(record.Timestamp()) / 1e9,
					Event:    record.Body().AsString(),
					Fields:   record.Attributes().AsRaw(),
					Metadata: resource.Resource().Attributes().AsRaw(),
				}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func main() {
	if err := serve(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func serve(address string) error {
	ctx := context.Background()
	acks := ackextension.NewFactory()
	extension, err := acks.Create(
		ctx, extensiontest.NewNopSettings(acks.Type()), acks.CreateDefaultConfig())
	if err != nil {
		return err
	}
	id := component.NewID(acks.Type())
	extensions := host{id: extension}
	if err := extension.Start(ctx, extensions); err != nil {
		return err
	}
	factory := splunkhecreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	settings := map[string]any{"endpoint": address, "ack": map[string]any{"extension": id.String()}}
	if err := confmap.NewFromStringMap(settings).Unmarshal(config); err != nil {
		return err
	}
	sink, err := consumer.NewLogs(write)
	if err != nil {
		return err
	}
	receiver, err := factory.CreateLogs(
		ctx, receivertest.NewNopSettings(factory.Type()), config, sink)
	if err != nil {
		return err
	}
	if err := receiver.Start(ctx, extensions); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
	return receiver.Shutdown(ctx)
}
