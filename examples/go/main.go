// A client of a flightstore gateway in Go, with the stock Arrow Flight library at its default settings.
//
//	go build && ./flightstore-example --url grpc://127.0.0.1:8815 put orders orders.arrow
//
// Copy what you need: each operation is one function that uses nothing but a connection.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/arrow/util"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Messages of about this size pass every gRPC library's default limit of 4 MiB. The gateway takes far larger ones.
const messageBytes = 2 << 20

// connect opens a connection; ca is a file of certificates to trust, empty for the system's.
func connect(address, ca string) (flight.Client, error) {
	where, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	security := insecure.NewCredentials()
	if where.Scheme == "grpc+tls" {
		config := &tls.Config{}
		if ca != "" {
			pem, err := os.ReadFile(ca)
			if err != nil {
				return nil, err
			}
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AppendCertsFromPEM(pem)
		}
		security = credentials.NewTLS(config)
	}
	return flight.NewClientWithMiddleware(where.Host, nil, nil, grpc.WithTransportCredentials(security))
}

// named is the descriptor of the object of that name.
func named(name string) *flight.FlightDescriptor {
	return &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{name}}
}

// commanded is a descriptor that says more than a name: JSON, see docs/protocol.md.
func commanded(command any) *flight.FlightDescriptor {
	cmd, _ := json.Marshal(command)
	return &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: cmd}
}

// put stores an Arrow IPC file or stream under a name: visible at once and whole, when the last batch is there.
func put(ctx context.Context, client flight.Client, name, path string) error {
	schema, batches, closeFile, err := openArrow(path)
	if err != nil {
		return err
	}
	defer closeFile()
	stream, err := client.DoPut(ctx)
	if err != nil {
		return err
	}
	writer := flight.NewRecordWriter(stream, ipc.WithSchema(schema))
	writer.SetFlightDescriptor(named(name))
	rows, sent := int64(0), error(nil)
	for sent == nil {
		batch, err := batches()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		rows += batch.NumRows()
		sent = writeSliced(writer, batch)
	}
	if sent == nil {
		sent = writer.Close()
	}
	if sent == nil {
		sent = stream.CloseSend()
	}
	// The gateway's answer also tells why a send failed.
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", answer.AppMetadata)
	}
	fmt.Printf("put %s: %d rows\n", name, rows)
	return sent
}

// writeSliced sends a batch in messages of about messageBytes.
func writeSliced(writer *flight.Writer, batch arrow.RecordBatch) error {
	step := batch.NumRows()
	if size := util.TotalRecordSize(batch); size > messageBytes {
		step = max(1, batch.NumRows()*messageBytes/size)
	}
	if step == batch.NumRows() { // an empty batch, too
		return writer.Write(batch)
	}
	for row := int64(0); row < batch.NumRows(); row += step {
		slice := batch.NewSlice(row, min(row+step, batch.NumRows()))
		err := writer.Write(slice)
		slice.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// read calls each for every batch of an object: GetFlightInfo says where its parts are, DoGet brings them.
func read(ctx context.Context, client flight.Client, what *flight.FlightDescriptor,
	each func(arrow.RecordBatch) error) (*arrow.Schema, error) {
	info, err := client.GetFlightInfo(ctx, what)
	if err != nil {
		return nil, err
	}
	var schema *arrow.Schema
	for _, endpoint := range info.Endpoint {
		stream, err := client.DoGet(ctx, endpoint.Ticket)
		if err != nil {
			return nil, err
		}
		reader, err := flight.NewRecordReader(stream)
		if err != nil {
			return nil, err
		}
		defer reader.Release()
		schema = reader.Schema()
		for reader.Next() {
			if err := each(reader.RecordBatch()); err != nil {
				return nil, err
			}
		}
		if err := reader.Err(); err != nil {
			return nil, err
		}
	}
	return schema, nil
}

// get writes an object to an Arrow IPC stream file.
func get(ctx context.Context, client flight.Client, name, path string) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	var writer *ipc.Writer
	rows := int64(0)
	schema, err := read(ctx, client, named(name), func(batch arrow.RecordBatch) error {
		if writer == nil {
			writer = ipc.NewWriter(out, ipc.WithSchema(batch.Schema()))
		}
		rows += batch.NumRows()
		return writer.Write(batch)
	})
	if err != nil {
		return err
	}
	if writer == nil { // no batches: the schema alone
		writer = ipc.NewWriter(out, ipc.WithSchema(schema))
	}
	fmt.Printf("got %s: %d rows\n", name, rows)
	return writer.Close()
}

// list prints all tables.
func list(ctx context.Context, client flight.Client) error {
	stream, err := client.ListFlights(ctx, &flight.Criteria{})
	if err != nil {
		return err
	}
	for {
		info, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d rows, %d bytes\n", nameOf(info), info.TotalRecords, info.TotalBytes)
	}
}

func nameOf(info *flight.FlightInfo) string {
	if path := info.FlightDescriptor.GetPath(); len(path) > 0 {
		return path[0]
	}
	return string(info.FlightDescriptor.GetCmd())
}

// info prints what the gateway knows of an object, and its schema.
func info(ctx context.Context, client flight.Client, name string) error {
	found, err := client.GetFlightInfo(ctx, named(name))
	if err != nil {
		return err
	}
	schema, err := flight.DeserializeSchema(found.Schema, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d rows, %d bytes, %d endpoint(s)\n", name, found.TotalRecords, found.TotalBytes, len(found.Endpoint))
	for _, field := range schema.Fields() {
		fmt.Printf("  %s: %s\n", field.Name, field.Type)
	}
	return nil
}

// addColumn makes a table that has all of another's columns and one more: its first float64 column, doubled.
//
// Only the column that is read and the one that is new cross the wire: the new table shares the others' memory.
func addColumn(ctx context.Context, client flight.Client, name, newName string) error {
	found, err := client.GetFlightInfo(ctx, named(name))
	if err != nil {
		return err
	}
	schema, err := flight.DeserializeSchema(found.Schema, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	source := ""
	for _, field := range schema.Fields() {
		if field.Type.ID() == arrow.FLOAT64 {
			source = field.Name
			break
		}
	}
	if source == "" {
		return fmt.Errorf("%s has no float64 column", name)
	}
	exchange, err := client.DoExchange(ctx)
	if err != nil {
		return err
	}
	added := arrow.NewSchema([]arrow.Field{{Name: "doubled", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, nil)
	writer := flight.NewRecordWriter(exchange, ipc.WithSchema(added))
	writer.SetFlightDescriptor(commanded(map[string]any{"add_columns_to": name, "name": newName}))
	one := commanded(map[string]any{"name": name, "columns": []string{source}})
	_, sent := read(ctx, client, one, func(batch arrow.RecordBatch) error {
		doubled := doubledOf(batch.Column(0).(*array.Float64))
		defer doubled.Release()
		return writer.Write(array.NewRecordBatch(added, []arrow.Array{doubled}, int64(doubled.Len())))
	})
	if sent == nil {
		sent = writer.Close()
	}
	if sent == nil {
		sent = exchange.CloseSend()
	}
	for {
		answer, err := exchange.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if len(answer.AppMetadata) > 0 {
			fmt.Printf("%s\n", answer.AppMetadata)
		}
	}
	return sent
}

func doubledOf(values *array.Float64) arrow.Array {
	builder := array.NewFloat64Builder(memory.DefaultAllocator)
	defer builder.Release()
	builder.Reserve(values.Len())
	for i, value := range values.Values() {
		if values.IsNull(i) {
			builder.AppendNull()
		} else {
			builder.Append(2 * value)
		}
	}
	return builder.NewArray()
}

// openArrow opens an Arrow IPC file or stream: its schema, and a function that gives the next batch, or io.EOF.
func openArrow(path string) (*arrow.Schema, func() (arrow.RecordBatch, error), func() error, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, nil, err
	}
	buffered := bufio.NewReaderSize(file, 1<<20)
	if magic, _ := buffered.Peek(6); bytes.Equal(magic, []byte("ARROW1")) {
		reader, err := ipc.NewFileReader(file)
		if err != nil {
			return nil, nil, nil, err
		}
		return reader.Schema(), reader.Read, file.Close, nil
	}
	reader, err := ipc.NewReader(buffered)
	if err != nil {
		return nil, nil, nil, err
	}
	return reader.Schema(), reader.Read, file.Close, nil
}

func run() error {
	address := flag.String("url", "grpc://127.0.0.1:8815", "the gateway: grpc:// or grpc+tls://")
	token := flag.String("token", "", "a token of the gateway's")
	ca := flag.String("ca", "", "certificates to trust (PEM)")
	flag.Parse()
	client, err := connect(*address, *ca)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx := context.Background()
	if *token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+*token)
	}
	words := append(flag.Args(), "", "", "")
	switch words[0] {
	case "put":
		return put(ctx, client, words[1], words[2])
	case "get":
		return get(ctx, client, words[1], words[2])
	case "list":
		return list(ctx, client)
	case "info":
		return info(ctx, client, words[1])
	case "add-column":
		return addColumn(ctx, client, words[1], words[2])
	}
	return errors.New("say put NAME FILE, get NAME FILE, list, info NAME or add-column NAME NEWNAME")
}

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
