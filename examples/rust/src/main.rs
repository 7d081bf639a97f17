//! A client of a flightstore gateway in Rust, with arrow-flight and tonic at their default settings.
//!
//!     cargo run --release -- --url grpc://127.0.0.1:8815 put orders orders.arrow
//!
//! Copy what you need: each operation is one function that uses nothing but a connection.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, RecordBatchReader};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::{Action, FlightClient, FlightDescriptor};
use arrow_ipc::reader::{FileReader, StreamDecoder, StreamReader};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use futures::{stream, StreamExt, TryStreamExt};
use serde_json::{json, Value};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Opens a connection; `ca` is a file of certificates to trust.
async fn connect(url: &str, token: Option<&str>, ca: Option<&str>) -> Outcome<FlightClient> {
    let (scheme, place) = url.split_once("://").ok_or("a URL begins with grpc:// or grpc+tls://")?;
    let endpoint = if scheme == "grpc+tls" {
        let mut tls = ClientTlsConfig::new();
        if let Some(path) = ca {
            tls = tls.ca_certificate(Certificate::from_pem(std::fs::read(path)?));
        }
        Endpoint::from_shared(format!("https://{place}"))?.tls_config(tls)?
    } else {
        Endpoint::from_shared(format!("http://{place}"))?
    };
    let mut client = FlightClient::new(endpoint.connect().await?);
    if let Some(token) = token {
        client.add_header("authorization", &format!("Bearer {token}"))?;
    }
    Ok(client)
}

/// The descriptor of the object of that name.
fn named(name: &str) -> FlightDescriptor {
    FlightDescriptor::new_path(vec![name.to_owned()])
}

/// The encoder cuts batches into messages of about 2 MB, which pass every gRPC library's default limit (the
/// gateway takes far larger ones). Left to itself it would send dictionaries as plain values.
fn encoder(descriptor: FlightDescriptor, schema: Arc<Schema>) -> FlightDataEncoderBuilder {
    FlightDataEncoderBuilder::new()
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_schema(schema)
        .with_flight_descriptor(Some(descriptor))
}

/// Stores an Arrow IPC file or stream under a name: visible at once and whole, when the last batch is there.
async fn put(client: &mut FlightClient, name: &str, path: &str) -> Outcome<()> {
    let batches = open_arrow(path)?;
    let data = encoder(named(name), batches.schema())
        .build(stream::iter(batches.map(|batch| batch.map_err(FlightError::from))));
    let mut answers = client.do_put(data).await?;
    while let Some(answer) = answers.try_next().await? {
        println!("{}", String::from_utf8_lossy(&answer.app_metadata));
    }
    println!("put {name}");
    Ok(())
}

/// The batches of an object: GetFlightInfo says where its parts are, DoGet brings them.
async fn read(client: &mut FlightClient, what: FlightDescriptor) -> Outcome<(Schema, Vec<FlightRecordBatchStream>)> {
    let info = client.get_flight_info(what).await?;
    let schema = info.clone().try_decode_schema()?;
    let mut parts = Vec::new();
    for endpoint in info.endpoint {
        parts.push(client.do_get(endpoint.ticket.ok_or("an endpoint without a ticket")?).await?);
    }
    Ok((schema, parts))
}

/// Writes an object to an Arrow IPC stream file.
async fn get(client: &mut FlightClient, name: &str, path: &str) -> Outcome<()> {
    let (schema, parts) = read(client, named(name)).await?;
    let mut writer = StreamWriter::try_new_buffered(File::create(path)?, &schema)?;
    let mut rows = 0;
    for mut part in parts {
        while let Some(batch) = part.try_next().await? {
            rows += batch.num_rows();
            writer.write(&batch)?;
        }
    }
    writer.finish()?;
    println!("got {name}: {rows} rows");
    Ok(())
}

/// Prints all tables.
async fn list(client: &mut FlightClient) -> Outcome<()> {
    let mut found = client.list_flights("").await?;
    while let Some(info) = found.try_next().await? {
        let descriptor = info.flight_descriptor.unwrap_or_default();
        let name = descriptor.path.first().cloned().unwrap_or(String::from_utf8_lossy(&descriptor.cmd).into());
        println!("{name}: {} rows, {} bytes", info.total_records, info.total_bytes);
    }
    Ok(())
}

/// Prints what the gateway knows of an object, and its schema.
async fn info(client: &mut FlightClient, name: &str) -> Outcome<()> {
    let info = client.get_flight_info(named(name)).await?;
    println!(
        "{name}: {} rows, {} bytes, {} endpoint(s)",
        info.total_records,
        info.total_bytes,
        info.endpoint.len()
    );
    for field in info.try_decode_schema()?.fields() {
        println!("  {}: {}", field.name(), field.data_type());
    }
    Ok(())
}

/// Makes a table that has all of another's columns and one more: its first float64 column, doubled.
///
/// Only the column that is read and the one that is new cross the wire: the new table shares the others' memory.
async fn add_column(client: &mut FlightClient, name: &str, new_name: &str) -> Outcome<()> {
    let schema = client.get_flight_info(named(name)).await?.try_decode_schema()?;
    let source = schema.fields().iter().find(|field| field.data_type() == &DataType::Float64);
    let source = source.ok_or(format!("{name} has no float64 column"))?.name();
    let wanted = FlightDescriptor::new_cmd(json!({"name": name, "columns": [source]}).to_string());
    let (_, parts) = read(client, wanted).await?;
    let added = Arc::new(Schema::new(vec![Field::new("doubled", DataType::Float64, true)]));
    let shape = added.clone();
    let doubled = stream::iter(parts).flatten().map(move |batch| {
        let batch = batch?;
        let values = batch.column(0).as_primitive::<Float64Type>();
        let doubled: Float64Array = values.unary(|value| 2.0 * value);
        Ok(RecordBatch::try_new(shape.clone(), vec![Arc::new(doubled) as ArrayRef])?)
    });
    // Store the column by itself, without a name, and make the table of both; then only the table uses it.
    let nameless = FlightDescriptor::new_cmd("{}");
    let mut answers = client.do_put(encoder(nameless, added).build(doubled)).await?;
    let answer = answers.try_next().await?.ok_or("no answer")?;
    let column = serde_json::from_slice::<Value>(&answer.app_metadata)?["id"].clone();
    let compose = json!({"operation": "with_columns", "refs": [name, column], "name": new_name});
    println!("{}", act(client, "compose", compose).await?);
    act(client, "delete", json!({"refs": [column]})).await?;
    Ok(())
}

/// Does an action: one JSON object goes, one comes.
async fn act(client: &mut FlightClient, action: &str, body: Value) -> Outcome<Value> {
    let mut answers = client.do_action(Action::new(action, body.to_string())).await?;
    let answer = answers.try_next().await?.ok_or("no answer")?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Reads a table where it lies in the store's memory, on the store's own machine: nothing is sent or copied.
///
/// The lease keeps the memory as it is; without one it may be used anew as soon as the object is deleted.
async fn in_place(client: &mut FlightClient, name: &str) -> Outcome<()> {
    let leased = act(client, "lease", json!({"ref": name, "seconds": 60})).await?;
    for segment in leased["segments"].as_array().into_iter().flatten() {
        let file = File::open(segment["path"].as_str().ok_or("a segment without a path")?)?;
        let place = (segment["offset"].as_u64().unwrap_or(0), segment["length"].as_u64().unwrap_or(0));
        // Safe because the lease holds, and what is stored never changes.
        let mapped = unsafe { memmap2::MmapOptions::new().offset(place.0).len(place.1 as usize).map(&file)? };
        print_sums(bytes::Bytes::from_owner(mapped))?;
    }
    act(client, "release", json!({"lease": leased["lease"]})).await?;
    Ok(())
}

/// Decodes an Arrow stream without copying it, and prints its rows and the sums of its float64 columns.
fn print_sums(arrow_stream: bytes::Bytes) -> Outcome<()> {
    let mut rest = arrow_buffer::Buffer::from(arrow_stream);
    let mapped = rest.as_ptr()..rest.as_ptr().wrapping_add(rest.len());
    let mut decoder = StreamDecoder::new();
    let (mut rows, mut sum, mut in_place) = (0, 0.0, true);
    while let Some(batch) = decoder.decode(&mut rest)? {
        rows += batch.num_rows();
        for column in batch.columns() {
            if let Some(values) = column.as_primitive_opt::<Float64Type>() {
                in_place &= mapped.contains(&values.values().inner().as_ptr());
                sum += values.iter().flatten().sum::<f64>();
            }
        }
    }
    println!("in place: {in_place}, {rows} rows, sum of float64 columns: {sum:?}");
    Ok(())
}

/// Opens an Arrow IPC file or stream.
fn open_arrow(path: &str) -> Outcome<Box<dyn RecordBatchReader + Send>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 6];
    let is_file = file.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    file.rewind()?;
    Ok(if is_file {
        Box::new(FileReader::try_new_buffered(file, None)?)
    } else {
        Box::new(StreamReader::try_new(BufReader::new(file), None)?)
    })
}

async fn run(arguments: Vec<String>) -> Outcome<()> {
    let (mut url, mut token, mut ca, mut words) = ("grpc://127.0.0.1:8815", None, None, Vec::new());
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "--url" => url = rest.next().ok_or("--url URL")?,
            "--token" => token = rest.next(),
            "--ca" => ca = rest.next(),
            _ => words.push(word),
        }
    }
    let mut client = connect(url, token, ca).await?;
    match words[..] {
        ["put", name, path] => put(&mut client, name, path).await,
        ["get", name, path] => get(&mut client, name, path).await,
        ["list"] => list(&mut client).await,
        ["info", name] => info(&mut client, name).await,
        ["add-column", name, new_name] => add_column(&mut client, name, new_name).await,
        ["inplace", name] => in_place(&mut client, name).await,
        _ => Err("say put NAME FILE, get NAME FILE, list, info NAME, add-column NAME NEWNAME or inplace NAME".into()),
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(run(std::env::args().skip(1).collect())) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
