//! The hand-written alternatives: the least that keeps the promise as long as nothing fails, and a middleware.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use http::{HeaderMap, HeaderValue, StatusCode};
use peers::minimum::{DIGEST, HEAD};
use sqlx::PgPool;
use testkit::bench::exchange::KEY;
use tower_idempotency_postgres::tokio_postgres::{Client, Config, NoTls, connect};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS minimum (key text PRIMARY KEY, request bytea NOT NULL, answer bytea)";
const CLAIM: &str = "INSERT INTO minimum (key, request) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const RECORD: &str = "UPDATE minimum SET answer = $2 WHERE key = $1";

/// Returns the handler between its claim and its record: two prepared statements, each on a connection of the pool. It
/// has no layer, no fingerprint, no duplicates, no expiry, and no interrupted runs.
pub(crate) async fn minimum(length: usize, url: &str, connections: usize) -> Router {
    client(url).await.batch_execute(TABLE).await.expect("a table");
    let config: Config = url.parse().expect("a URL");
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, NoTls, manager);
    let pool = Pool::builder(manager).max_size(connections).build().expect("a pool");
    let body = Bytes::from(vec![b'x'; length]);
    let charge = async move |State(pool): State<Pool>, headers: HeaderMap| {
        let key = headers[KEY].to_str().expect("text");
        let claimed = {
            let client = pool.get().await.expect("a connection");
            let claim = client.prepare_cached(CLAIM).await.expect("a statement");
            client.execute(&claim, &[&key, &DIGEST.as_slice()]).await.expect("it is answered")
        };
        assert_eq!(claimed, 1, "each key is new");
        let answer = body.clone();
        let client = pool.get().await.expect("a connection");
        let record = client.prepare_cached(RECORD).await.expect("a statement");
        client.execute(&record, &[&key, &[&HEAD[..], &answer].concat()]).await.expect("it is answered");
        answer
    };
    Router::new().route("/charges", post(charge)).with_state(pool)
}

const REQUESTS: &str = "CREATE TABLE IF NOT EXISTS requests (key text PRIMARY KEY, digest bytea NOT NULL, status int, \
    headers bytea, body bytea, began timestamptz NOT NULL DEFAULT now())";

/// Returns `app` behind a quick hand-written middleware: a claim, the request's digest, and the answer in the claim's
/// row. A process that dies leaves its keys claimed for ever, and so does a client that goes away.
pub(crate) async fn middleware(app: Router, pool: PgPool) -> Router {
    sqlx::query(REQUESTS).execute(&pool).await.expect("a table");
    app.layer(from_fn_with_state(pool, once)).with_state(())
}

async fn once(State(pool): State<PgPool>, request: Request, next: Next) -> Response {
    let key = request.headers().get(KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let Some(key) = key else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 1 << 20).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let mut hasher = blake3::Hasher::new();
    hasher.update(parts.method.as_str().as_bytes()).update(parts.uri.path().as_bytes()).update(&body);
    let digest = *hasher.finalize().as_bytes();
    match claim(&pool, &key, &digest).await {
        Ok(None) => {}
        Ok(Some(response)) => return response,
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
    let (parts, body) = next.run(Request::from_parts(parts, Body::from(body))).await.into_parts();
    let Ok(body) = to_bytes(body, 1 << 20).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let headers: Vec<u8> = parts
        .headers
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat())
        .collect();
    let recorded = sqlx::query("UPDATE requests SET status = $2, headers = $3, body = $4 WHERE key = $1")
        .bind(&key)
        .bind(i32::from(parts.status.as_u16()))
        .bind(headers)
        .bind(&body[..])
        .execute(&pool)
        .await;
    assert!(recorded.is_ok(), "what to do then is another afternoon's work");
    Response::from_parts(parts, Body::from(body))
}

type Known = (Vec<u8>, Option<i32>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Claims the key. Returns `Some` if the key is known.
async fn claim(pool: &PgPool, key: &str, digest: &[u8; 32]) -> sqlx::Result<Option<Response>> {
    let claim = "INSERT INTO requests (key, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let claimed = sqlx::query(claim).bind(key).bind(&digest[..]).execute(pool).await?;
    if claimed.rows_affected() == 1 {
        return Ok(None);
    }
    let known = "SELECT digest, status, headers, body FROM requests WHERE key = $1";
    let (known, status, headers, body): Known = sqlx::query_as(known).bind(key).fetch_one(pool).await?;
    Ok(Some(match (status, body) {
        _ if known != digest => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        (Some(status), Some(body)) => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() =
                u16::try_from(status).ok().and_then(|status| status.try_into().ok()).unwrap_or_default();
            for line in headers.unwrap_or_default().split(|byte| *byte == b'\n') {
                let Some(colon) = line.windows(2).position(|two| two == b": ") else { continue };
                let (name, value) =
                    (http::HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 2..]));
                if let (Ok(name), Ok(value)) = (name, value) {
                    response.headers_mut().append(name, value);
                }
            }
            response
        }
        _ => StatusCode::CONFLICT.into_response(),
    }))
}

/// Returns a connection of the bench's own.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = connect(url, NoTls).await.expect("the database answers");
    tokio::spawn(connection);
    client
}
