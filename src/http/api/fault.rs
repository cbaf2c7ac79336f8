//! Why a request is not met, as JSON: `{"error": "bad_parameter", "field": "limit", "message": "…"}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::alert::request::RequestError;
use crate::store::StoreError;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    status: StatusCode,
    /// For programs; also the reason it is counted by.
    error: &'static str,
    /// The parameter or field that is at fault.
    field: Option<String>,
    /// For people.
    message: String,
}

/// On the response, for whoever counts them.
#[derive(Clone, Copy)]
pub(super) struct Refused(pub &'static str);

/// When it is worth another attempt, seconds.
const RETRY_AFTER: &str = "5";

impl Fault {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Fault {
        Fault { status, error, field: None, message: message.into() }
    }

    fn at(self, field: impl Into<String>) -> Fault {
        Fault { field: Some(field.into()), ..self }
    }

    pub(super) fn parameter(field: &str, message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "bad_parameter", message).at(field)
    }

    pub(super) fn body(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "bad_body", message)
    }

    pub(super) fn too_large(most: usize) -> Fault {
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the body has more than {most} bytes"))
    }

    pub(super) fn no_route() -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "no_such_path", "there is nothing at this path")
    }

    pub(super) fn method() -> Fault {
        let message = "this path takes another method; the header Allow names it";
        Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn off() -> Fault {
        let message = "the API is off: [http] listen is open to the network, and no token is configured";
        Fault::new(StatusCode::FORBIDDEN, "off", message)
    }

    pub(super) fn unauthorized(message: &str) -> Fault {
        Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn foreign(field: &str, message: &str) -> Fault {
        Fault::new(StatusCode::FORBIDDEN, "forbidden", message).at(field)
    }

    pub(super) fn media_type() -> Fault {
        let message = "a request that changes something is sent with Content-Type: application/json";
        Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).at("Content-Type")
    }

    pub(super) fn busy() -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests are under way")
    }

    pub(super) fn late() -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long")
    }

    pub(super) fn internal() -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "tidegate failed; its log says why")
    }

    /// `connected`: whether the daemon has a database to work with.
    pub(super) fn of_store(error: &StoreError, connected: bool) -> Fault {
        match error {
            StoreError::Missing { what, detail } => {
                Fault::new(StatusCode::NOT_FOUND, "not_found", detail.clone()).at(*what)
            }
            StoreError::Twin(refused) => {
                let status = StatusCode::from_u16(refused.reason.code()).unwrap_or(StatusCode::BAD_REQUEST);
                Fault::new(status, refused.reason.word(), refused.message.clone())
            }
            StoreError::Past { detail } => Fault::new(StatusCode::CONFLICT, "conflict", detail.clone()),
            StoreError::Unfit { detail } => Fault::new(StatusCode::BAD_REQUEST, "bad_request", detail.clone()),
            error if error.is_transient() || error.awaits_a_person() => {
                tracing::debug!(%error, "a request of the HTTP API waits for the database in vain");
                Fault::new(StatusCode::SERVICE_UNAVAILABLE, "database_down", error.to_string())
            }
            // Before it has a schema, or the one that is needed.
            error if !connected => {
                tracing::debug!(%error, "a request of the HTTP API came before the database was open");
                let message = "the database is not open yet; /readyz tells when it is";
                Fault::new(StatusCode::SERVICE_UNAVAILABLE, "database_down", message)
            }
            error => {
                tracing::warn!(%error, "a request of the HTTP API failed");
                Fault::internal()
            }
        }
    }

    pub(super) fn of_request(error: &RequestError) -> Fault {
        let fault = Fault::body(error.to_string());
        match error.field() {
            Some(field) => fault.at(field),
            None => fault,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut body = json!({"error": self.error, "message": self.message});
        if let (Some(field), Some(object)) = (&self.field, body.as_object_mut()) {
            object.insert("field".to_owned(), json!(field));
        }
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(Refused(self.error));
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))
            }
            _ => None,
        };
        response
    }
}
