package example;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.arrow.flight.Action;
import org.apache.arrow.flight.AsyncPutListener;
import org.apache.arrow.flight.CallOption;
import org.apache.arrow.flight.Criteria;
import org.apache.arrow.flight.FlightCallHeaders;
import org.apache.arrow.flight.FlightClient;
import org.apache.arrow.flight.FlightClient.ClientStreamListener;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightEndpoint;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.FlightRuntimeException;
import org.apache.arrow.flight.FlightStream;
import org.apache.arrow.flight.HeaderCallOption;
import org.apache.arrow.flight.Location;
import org.apache.arrow.flight.PutResult;
import org.apache.arrow.flight.Result;
import org.apache.arrow.flight.SyncPutListener;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.Float8Vector;
import org.apache.arrow.vector.VectorLoader;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.VectorUnloader;
import org.apache.arrow.vector.dictionary.DictionaryProvider;
import org.apache.arrow.vector.ipc.ArrowFileReader;
import org.apache.arrow.vector.ipc.ArrowReader;
import org.apache.arrow.vector.ipc.ArrowStreamReader;
import org.apache.arrow.vector.ipc.ArrowStreamWriter;
import org.apache.arrow.vector.ipc.message.ArrowRecordBatch;
import org.apache.arrow.vector.types.FloatingPointPrecision;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;

/**
 * A client of a flightstore gateway in Java, with Arrow's flight-core at its default settings.
 *
 * <p>Copy what you need: each operation is one method that uses nothing but a connection.
 */
public final class Main implements AutoCloseable {
  /** Messages of about this size pass every gRPC library's default limit of 4 MiB. The gateway takes larger ones. */
  private static final long MESSAGE_BYTES = 2 << 20;

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final ArrowType FLOAT64 = new ArrowType.FloatingPoint(FloatingPointPrecision.DOUBLE);

  private final BufferAllocator allocator = new RootAllocator();
  private final FlightClient client;
  private final CallOption headers;

  /** Opens a connection; {@code ca} is a file of certificates to trust, null for the system's. */
  Main(String url, String token, String ca) throws Exception {
    FlightClient.Builder builder = FlightClient.builder(allocator, new Location(url));
    if (ca != null) {
      builder.trustedCertificates(Files.newInputStream(Path.of(ca)));
    }
    client = builder.build();
    FlightCallHeaders sent = new FlightCallHeaders();
    if (token != null) {
      sent.insert("authorization", "Bearer " + token);
    }
    headers = new HeaderCallOption(sent);
  }

  @Override
  public void close() throws Exception {
    client.close();
    allocator.close();
  }

  /** Stores an Arrow IPC file or stream under a name: visible at once and whole, when the last batch is there. */
  void put(String name, String path) throws Exception {
    try (InputStream file = new FileInputStream(path);
        ArrowReader reader = openArrow((FileInputStream) file);
        VectorSchemaRoot sent = VectorSchemaRoot.create(reader.getVectorSchemaRoot().getSchema(), allocator)) {
      boolean there = reader.loadNextBatch(); // and the dictionaries, which go first
      AsyncPutListener answer = new AsyncPutListener();
      ClientStreamListener put =
          client.startPut(FlightDescriptor.path(name), sent, reader, answer, headers);
      long rows = 0;
      for (; there; there = reader.loadNextBatch()) {
        putSliced(reader.getVectorSchemaRoot(), sent, put);
        rows += reader.getVectorSchemaRoot().getRowCount();
      }
      put.completed();
      answer.getResult(); // says whether it was stored
      System.out.printf("put %s: %d rows%n", name, rows);
    }
  }

  /** Sends a batch in messages of about MESSAGE_BYTES. */
  private static void putSliced(VectorSchemaRoot batch, VectorSchemaRoot sent, ClientStreamListener put) {
    long size = Math.max(MESSAGE_BYTES, batch.getFieldVectors().stream().mapToLong(FieldVector::getBufferSize).sum());
    int step = (int) Math.max(1, batch.getRowCount() * MESSAGE_BYTES / size);
    int row = 0;
    do { // an empty batch, too
      int rows = Math.min(step, batch.getRowCount() - row);
      try (VectorSchemaRoot slice = batch.slice(row, rows)) {
        copy(slice, sent);
      }
      put.putNext(); // waits while the receiver is busy
      row += step;
    } while (row < batch.getRowCount());
  }

  /** Lets one root have the other's values. */
  private static void copy(VectorSchemaRoot from, VectorSchemaRoot to) {
    try (ArrowRecordBatch batch = new VectorUnloader(from).getRecordBatch()) {
      new VectorLoader(to).load(batch);
    }
  }

  private interface Each {
    void batch(VectorSchemaRoot root, DictionaryProvider dictionaries) throws Exception;
  }

  /** Shows every batch of an object: GetFlightInfo says where its parts are, DoGet brings them. */
  private void read(FlightDescriptor what, Each each) throws Exception {
    FlightInfo info = client.getInfo(what, headers);
    for (FlightEndpoint endpoint : info.getEndpoints()) {
      try (FlightStream stream = client.getStream(endpoint.getTicket(), headers)) {
        while (stream.next()) {
          each.batch(stream.getRoot(), stream.getDictionaryProvider());
        }
      }
    }
  }

  /** Writes an object to an Arrow IPC stream file. */
  void get(String name, String path) throws Exception {
    FlightInfo info = client.getInfo(FlightDescriptor.path(name), headers);
    long rows = 0;
    try (FileOutputStream file = new FileOutputStream(path)) {
      for (FlightEndpoint endpoint : info.getEndpoints()) {
        try (FlightStream stream = client.getStream(endpoint.getTicket(), headers);
            ArrowStreamWriter writer =
                new ArrowStreamWriter(stream.getRoot(), stream.getDictionaryProvider(), file.getChannel())) {
          writer.start();
          while (stream.next()) {
            rows += stream.getRoot().getRowCount();
            writer.writeBatch();
          }
          writer.end();
        }
      }
    }
    System.out.printf("got %s: %d rows%n", name, rows);
  }

  /** Prints all tables. */
  void list() {
    for (FlightInfo info : client.listFlights(Criteria.ALL, headers)) {
      System.out.printf("%s: %d rows, %d bytes%n", nameOf(info), info.getRecords(), info.getBytes());
    }
  }

  private static String nameOf(FlightInfo info) {
    FlightDescriptor descriptor = info.getDescriptor();
    return descriptor.isCommand()
        ? new String(descriptor.getCommand(), StandardCharsets.UTF_8)
        : descriptor.getPath().get(0);
  }

  /** Prints what the gateway knows of an object, and its schema. */
  void info(String name) {
    FlightInfo info = client.getInfo(FlightDescriptor.path(name), headers);
    System.out.printf(
        "%s: %d rows, %d bytes, %d endpoint(s)%n",
        name, info.getRecords(), info.getBytes(), info.getEndpoints().size());
    info.getSchema().getFields().forEach(field -> System.out.printf("  %s: %s%n", field.getName(), field.getType()));
  }

  /**
   * Makes a table that has all of another's columns and one more: its first float64 column, doubled.
   *
   * <p>Only the column that is read and the one that is new cross the wire: the new table shares the others' memory.
   */
  void addColumn(String name, String newName) throws Exception {
    Schema schema = client.getInfo(FlightDescriptor.path(name), headers).getSchema();
    Field source =
        schema.getFields().stream()
            .filter(field -> field.getType().equals(FLOAT64))
            .findFirst()
            .orElseThrow(() -> new IllegalArgumentException(name + " has no float64 column"));
    // The new column by itself goes without a name; then the table is made of both, and only the table uses it.
    String column;
    try (Float8Vector doubled = new Float8Vector("doubled", allocator);
        VectorSchemaRoot sent = new VectorSchemaRoot(List.of(doubled))) {
      SyncPutListener answers = new SyncPutListener();
      ClientStreamListener put =
          client.startPut(FlightDescriptor.command("{}".getBytes(StandardCharsets.UTF_8)), sent, answers, headers);
      byte[] wanted = JSON.writeValueAsBytes(Map.of("name", name, "columns", List.of(source.getName())));
      read(
          FlightDescriptor.command(wanted),
          (batch, dictionaries) -> {
            double_((Float8Vector) batch.getVector(0), doubled);
            sent.setRowCount(batch.getRowCount());
            put.putNext();
          });
      put.completed();
      try (PutResult answer = answers.read()) {
        byte[] text = new byte[(int) answer.getApplicationMetadata().readableBytes()];
        answer.getApplicationMetadata().getBytes(0, text);
        column = JSON.readTree(text).get("id").asText();
      }
      put.getResult();
    }
    List<String> refs = List.of(name, column);
    System.out.println(act("compose", Map.of("operation", "with_columns", "refs", refs, "name", newName)));
    act("delete", Map.of("refs", List.of(column)));
  }

  private static void double_(Float8Vector values, Float8Vector doubled) {
    doubled.allocateNew(values.getValueCount());
    for (int i = 0; i < values.getValueCount(); i++) {
      if (values.isNull(i)) {
        doubled.setNull(i);
      } else {
        doubled.set(i, 2 * values.get(i));
      }
    }
    doubled.setValueCount(values.getValueCount());
  }

  /** Does an action: one JSON object goes, one comes. */
  private JsonNode act(String action, Map<String, ?> body) throws Exception {
    Result answer = client.doAction(new Action(action, JSON.writeValueAsBytes(body)), headers).next();
    return JSON.readTree(answer.getBody());
  }

  /** Opens an Arrow IPC file or stream. */
  private ArrowReader openArrow(FileInputStream file) throws Exception {
    byte[] magic = file.readNBytes(6);
    file.getChannel().position(0);
    return new String(magic, StandardCharsets.US_ASCII).equals("ARROW1")
        ? new ArrowFileReader(file.getChannel(), allocator)
        : new ArrowStreamReader(file.getChannel(), allocator);
  }

  private void run(List<String> words) throws Exception {
    switch (words.isEmpty() ? "" : words.get(0)) {
      case "put" -> put(words.get(1), words.get(2));
      case "get" -> get(words.get(1), words.get(2));
      case "list" -> list();
      case "info" -> info(words.get(1));
      case "add-column" -> addColumn(words.get(1), words.get(2));
      default ->
          throw new IllegalArgumentException(
              "say put NAME FILE, get NAME FILE, list, info NAME or add-column NAME NEWNAME");
    }
  }

  public static void main(String[] arguments) throws Exception {
    List<String> words = new ArrayList<>(Arrays.asList(arguments));
    Map<String, String> options = new HashMap<>(Map.of("--url", "grpc://127.0.0.1:8815"));
    while (words.size() > 1 && words.get(0).startsWith("--")) {
      options.put(words.remove(0), words.remove(0));
    }
    try (Main connection = new Main(options.get("--url"), options.get("--token"), options.get("--ca"))) {
      connection.run(words);
    } catch (FlightRuntimeException error) {
      System.err.println(error.status().code() + ": " + error.getMessage());
      System.exit(1);
    }
  }
}
