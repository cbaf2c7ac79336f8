//! One HTTP POST on a connection of its own: notifications are rare, and their servers are far apart.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::Failure;
use crate::config::{Secret, Tls};
use crate::mqtt::client_config;

/// Posts to a URL and returns the status; redirections are not followed.
///
/// # Errors
/// Where there is no answer. The URL is in no error: its path often is a secret.
pub(super) async fn post(
    url: &Secret,
    content_type: &str,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let url = Url::parse(url.expose()).map_err(|_| Failure::of("its URL can't be read", true))?;
    let (host, port) = match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) => (host.to_owned(), port),
        _ => return Err(Failure::of("its URL names no host", true)),
    };
    let request = request(&url, content_type, headers, body)?;
    let stream = connect(&host, port).await?;
    if url.scheme() != "https" {
        return exchange(stream, request).await;
    }
    let config = client_config(&Tls::default()).map_err(Failure::passing)?;
    let name = server_name(&host)?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    exchange(stream.map_err(|error| Failure::passing(format!("TLS: {error}")))?, request).await
}

async fn connect(host: &Host<String>, port: u16) -> Result<TcpStream, Failure> {
    let connected = match host {
        Host::Domain(name) => TcpStream::connect((name.as_str(), port)).await,
        Host::Ipv4(address) => TcpStream::connect((*address, port)).await,
        Host::Ipv6(address) => TcpStream::connect((*address, port)).await,
    };
    connected.map_err(|error| Failure::passing(format!("can't connect: {error}")))
}

fn server_name(host: &Host<String>) -> Result<ServerName<'static>, Failure> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|_| Failure::of("its host's name can't be in a certificate", true)),
        Host::Ipv4(address) => Ok(std::net::IpAddr::from(*address).into()),
        Host::Ipv6(address) => Ok(std::net::IpAddr::from(*address).into()),
    }
}

fn request(
    url: &Url,
    content_type: &str,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Failure> {
    let authority = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
    let mut builder = Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, agent)
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, body.len());
    if !url.username().is_empty() || url.password().is_some() {
        builder = builder.header(hyper::header::AUTHORIZATION, basic(url));
    }
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(body)).map_err(|_| Failure::of("the request can't be written", true))
}

/// RFC 7617, from the user and password of a URL.
fn basic(url: &Url) -> HeaderValue {
    use base64::Engine as _;
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = decoded(url.username());
    pair.push(b':');
    pair.extend(decoded(url.password().unwrap_or_default()));
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut value = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::passing(format!("no answer: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        // Its end may come with the answer.
        _ = connection => answer.await,
    };
    Ok(response.map_err(broken)?.status())
}
