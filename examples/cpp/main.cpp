// A client of a flightstore gateway in C++20, with Arrow Flight at its default settings.
//
//     make && ./flightstore-example --url grpc://127.0.0.1:8815 put orders orders.arrow
//
// Copy what you need: each operation is one function that uses nothing but a connection.

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <arrow/api.h>
#include <arrow/flight/api.h>
#include <arrow/io/api.h>
#include <arrow/ipc/api.h>
#include <arrow/util/byte_size.h>

namespace flight = arrow::flight;
using arrow::Result;
using arrow::Status;

// Messages of about this size pass every gRPC library's default limit of 4 MiB. The gateway takes far larger ones.
constexpr int64_t kMessageBytes = 2 << 20;

struct Connection {
  std::unique_ptr<flight::FlightClient> client;
  flight::FlightCallOptions call;  // goes with every call: here, who we are
};

// Opens a connection; `ca` is a file of certificates to trust, empty for the system's.
Result<Connection> Connect(const std::string& url, const std::string& token, const std::string& ca) {
  ARROW_ASSIGN_OR_RAISE(auto location, flight::Location::Parse(url));
  auto options = flight::FlightClientOptions::Defaults();
  if (!ca.empty()) {
    std::ifstream file(ca);
    options.tls_root_certs.assign(std::istreambuf_iterator<char>(file), {});
  }
  Connection connection;
  ARROW_ASSIGN_OR_RAISE(connection.client, flight::FlightClient::Connect(location, options));
  if (!token.empty()) connection.call.headers.emplace_back("authorization", "Bearer " + token);
  return connection;
}

// The descriptor of the object of that name.
flight::FlightDescriptor Named(const std::string& name) { return flight::FlightDescriptor::Path({name}); }

// A text as JSON has it.
std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

// Sends a batch in messages of about kMessageBytes.
Status WriteSliced(flight::FlightStreamWriter& writer, const arrow::RecordBatch& batch) {
  ARROW_ASSIGN_OR_RAISE(int64_t size, arrow::util::ReferencedBufferSize(batch));
  int64_t step = std::max<int64_t>(1, batch.num_rows() * kMessageBytes / std::max(size, kMessageBytes));
  int64_t row = 0;
  do {  // an empty batch, too
    ARROW_RETURN_NOT_OK(writer.WriteRecordBatch(*batch.Slice(row, step)));
    row += step;
  } while (row < batch.num_rows());
  return Status::OK();
}

// An Arrow IPC file or stream, batch by batch.
Result<std::shared_ptr<arrow::RecordBatchReader>> OpenArrow(const std::string& path) {
  ARROW_ASSIGN_OR_RAISE(auto file, arrow::io::ReadableFile::Open(path));
  ARROW_ASSIGN_OR_RAISE(auto magic, file->Read(6));
  ARROW_RETURN_NOT_OK(file->Seek(0));
  if (magic->ToString() != "ARROW1") return arrow::ipc::RecordBatchStreamReader::Open(file);
  ARROW_ASSIGN_OR_RAISE(auto reader, arrow::ipc::RecordBatchFileReader::Open(file));
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  for (int i = 0; i < reader->num_record_batches(); i++) {
    ARROW_ASSIGN_OR_RAISE(auto batch, reader->ReadRecordBatch(i));
    batches.push_back(std::move(batch));
  }
  return arrow::RecordBatchReader::Make(std::move(batches), reader->schema());
}

// Stores an Arrow IPC file or stream under a name: visible at once and whole, when the last batch is there.
Status Put(Connection& to, const std::string& name, const std::string& path) {
  ARROW_ASSIGN_OR_RAISE(auto batches, OpenArrow(path));
  ARROW_ASSIGN_OR_RAISE(auto stream, to.client->DoPut(to.call, Named(name), batches->schema()));
  int64_t rows = 0;
  for (auto found : *batches) {
    ARROW_ASSIGN_OR_RAISE(auto batch, found);
    if (Status sent = WriteSliced(*stream.writer, *batch); !sent.ok()) return stream.writer->Close() & sent;
    rows += batch->num_rows();
  }
  ARROW_RETURN_NOT_OK(stream.writer->DoneWriting());
  std::shared_ptr<arrow::Buffer> answer;
  ARROW_RETURN_NOT_OK(stream.reader->ReadMetadata(&answer));
  ARROW_RETURN_NOT_OK(stream.writer->Close());  // says whether it was stored
  if (answer) std::cout << answer->ToString() << "\n";
  std::cout << "put " << name << ": " << rows << " rows\n";
  return Status::OK();
}

// Calls `each` with every batch of an object: GetFlightInfo says where its parts are, DoGet brings them.
template <typename Each>
Status Read(Connection& from, const flight::FlightDescriptor& what, Each each) {
  ARROW_ASSIGN_OR_RAISE(auto info, from.client->GetFlightInfo(from.call, what));
  for (const auto& endpoint : info->endpoints()) {
    ARROW_ASSIGN_OR_RAISE(auto stream, from.client->DoGet(from.call, endpoint.ticket));
    while (true) {
      ARROW_ASSIGN_OR_RAISE(auto chunk, stream->Next());
      if (!chunk.data) break;
      ARROW_RETURN_NOT_OK(each(*chunk.data));
    }
  }
  return Status::OK();
}

Result<std::shared_ptr<arrow::Schema>> SchemaOf(Connection& from, const std::string& name) {
  ARROW_ASSIGN_OR_RAISE(auto info, from.client->GetFlightInfo(from.call, Named(name)));
  arrow::ipc::DictionaryMemo memo;
  return info->GetSchema(&memo);
}

// Writes an object to an Arrow IPC stream file.
Status Get(Connection& from, const std::string& name, const std::string& path) {
  ARROW_ASSIGN_OR_RAISE(auto schema, SchemaOf(from, name));
  ARROW_ASSIGN_OR_RAISE(auto file, arrow::io::FileOutputStream::Open(path));
  ARROW_ASSIGN_OR_RAISE(auto writer, arrow::ipc::MakeStreamWriter(file, schema));
  int64_t rows = 0;
  ARROW_RETURN_NOT_OK(Read(from, Named(name), [&](const arrow::RecordBatch& batch) {
    rows += batch.num_rows();
    return writer->WriteRecordBatch(batch);
  }));
  ARROW_RETURN_NOT_OK(writer->Close());
  std::cout << "got " << name << ": " << rows << " rows\n";
  return file->Close();
}

// Prints all tables.
Status List(Connection& from) {
  ARROW_ASSIGN_OR_RAISE(auto found, from.client->ListFlights(from.call, {}));
  while (true) {
    ARROW_ASSIGN_OR_RAISE(auto info, found->Next());
    if (!info) return Status::OK();
    const auto& descriptor = info->descriptor();
    std::cout << (descriptor.path.empty() ? descriptor.cmd : descriptor.path[0]) << ": " << info->total_records()
              << " rows, " << info->total_bytes() << " bytes\n";
  }
}

// Prints what the gateway knows of an object, and its schema.
Status Info(Connection& from, const std::string& name) {
  ARROW_ASSIGN_OR_RAISE(auto info, from.client->GetFlightInfo(from.call, Named(name)));
  ARROW_ASSIGN_OR_RAISE(auto schema, SchemaOf(from, name));
  std::cout << name << ": " << info->total_records() << " rows, " << info->total_bytes() << " bytes, "
            << info->endpoints().size() << " endpoint(s)\n";
  for (const auto& field : schema->fields()) std::cout << "  " << field->ToString() << "\n";
  return Status::OK();
}

Result<std::shared_ptr<arrow::Array>> Doubled(const arrow::Array& array) {
  const auto& values = static_cast<const arrow::DoubleArray&>(array);
  arrow::DoubleBuilder builder;
  ARROW_RETURN_NOT_OK(builder.Reserve(values.length()));
  for (const auto& value : values) {
    value ? builder.UnsafeAppend(2 * *value) : builder.UnsafeAppendNull();
  }
  return builder.Finish();
}

// Makes a table that has all of another's columns and one more: its first float64 column, doubled.
//
// Only the column that is read and the one that is new cross the wire: the new table shares the others' memory.
Status AddColumn(Connection& to, const std::string& name, const std::string& new_name) {
  ARROW_ASSIGN_OR_RAISE(auto schema, SchemaOf(to, name));
  auto source = std::ranges::find_if(
      schema->fields(), [](const auto& field) { return field->type()->id() == arrow::Type::DOUBLE; });
  if (source == schema->fields().end()) return Status::Invalid(name, " has no float64 column");
  auto wanted = flight::FlightDescriptor::Command(
      R"({"name": )" + Quoted(name) + R"(, "columns": [)" + Quoted((*source)->name()) + "]}");
  auto command = flight::FlightDescriptor::Command(
      R"({"add_columns_to": )" + Quoted(name) + R"(, "name": )" + Quoted(new_name) + "}");
  ARROW_ASSIGN_OR_RAISE(auto exchange, to.client->DoExchange(to.call, command));
  auto added = arrow::schema({arrow::field("doubled", arrow::float64())});
  ARROW_RETURN_NOT_OK(exchange.writer->Begin(added));
  ARROW_RETURN_NOT_OK(Read(to, wanted, [&](const arrow::RecordBatch& batch) -> Status {
    ARROW_ASSIGN_OR_RAISE(auto doubled, Doubled(*batch.column(0)));
    return exchange.writer->WriteRecordBatch(*arrow::RecordBatch::Make(added, batch.num_rows(), {doubled}));
  }));
  ARROW_RETURN_NOT_OK(exchange.writer->DoneWriting());
  ARROW_ASSIGN_OR_RAISE(auto answer, exchange.reader->Next());
  ARROW_RETURN_NOT_OK(exchange.writer->Close());
  if (answer.app_metadata) std::cout << answer.app_metadata->ToString() << "\n";
  return Status::OK();
}

Status Run(const std::vector<std::string>& arguments) {
  std::map<std::string, std::string> options{{"--url", "grpc://127.0.0.1:8815"}};
  std::vector<std::string> words;
  for (size_t i = 0; i < arguments.size(); i++) {
    if (arguments[i].starts_with("--") && i + 1 < arguments.size()) {
      options[arguments[i]] = arguments[i + 1];
      i++;
    } else {
      words.push_back(arguments[i]);
    }
  }
  ARROW_ASSIGN_OR_RAISE(auto connection, Connect(options["--url"], options["--token"], options["--ca"]));
  words.resize(3);
  if (words[0] == "put") return Put(connection, words[1], words[2]);
  if (words[0] == "get") return Get(connection, words[1], words[2]);
  if (words[0] == "list") return List(connection);
  if (words[0] == "info") return Info(connection, words[1]);
  if (words[0] == "add-column") return AddColumn(connection, words[1], words[2]);
  return Status::Invalid("say put NAME FILE, get NAME FILE, list, info NAME or add-column NAME NEWNAME");
}

int main(int argc, char** argv) {
  Status status = Run({argv + 1, argv + argc});
  if (!status.ok()) std::cerr << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}
