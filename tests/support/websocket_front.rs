//! MQTT over WebSocket in front of a plain broker, for builds of mosquitto that have none.

use async_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use rumqttc::tokio_rustls::TlsAcceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use ws_stream_tungstenite::WsStream;

/// Listens on a free port until dropped.
pub struct WebSocketFront {
    pub port: u16,
    task: JoinHandle<()>,
}

impl WebSocketFront {
    /// Forwards to `broker`; takes only upgrades of `path` with the subprotocol `mqtt`.
    pub async fn start(broker: u16, path: &'static str, tls: Option<TlsAcceptor>) -> WebSocketFront {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                open.push(Abort(tokio::spawn(async move {
                    match tls {
                        None => forward(stream, broker, path).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            forward(stream, broker, path).await;
                        }
                    }
                })));
            }
        });
        WebSocketFront { port, task }
    }
}

impl Drop for WebSocketFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[allow(clippy::result_large_err)] // the handshake's own signature
async fn forward(stream: impl AsyncRead + AsyncWrite + Send + Unpin, broker: u16, path: &'static str) {
    let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let subprotocol = request.headers().get("Sec-WebSocket-Protocol").cloned();
        if request.uri().path() != path || subprotocol.as_ref().is_none_or(|asked| asked != "mqtt") {
            return Err(ErrorResponse::new(None));
        }
        if let Some(asked) = subprotocol {
            response.headers_mut().insert("Sec-WebSocket-Protocol", asked);
        }
        Ok(response)
    };
    let Ok(socket) = async_tungstenite::tokio::accept_hdr_async(stream, check).await else { return };
    let mut socket = WsStream::new(socket);
    let Ok(mut to) = TcpStream::connect(("127.0.0.1", broker)).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut socket, &mut to).await;
}
