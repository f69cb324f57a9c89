//! An API server as a value: started over a store, called in memory or served over HTTPS.

use std::sync::Arc;
use std::task::{Context, Poll};

use access::User;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use store::contract::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::body::{Body, BoxError};
use crate::cache::Cache;
use crate::config::Config;
use crate::engine::Engine;
use crate::layers::authentication::LocalUser;
use crate::limits::{HEADERS_BYTES_MAX, SHUTDOWN_GRACE, STREAMS_MAX, TLS_HANDSHAKE_MAX};
use crate::{bootstrap, own_service, stack};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("reading the store failed")]
    Store(#[from] store::contract::StoreError),
    #[error("creating {what} failed: {status}")]
    Bootstrap { what: String, status: Box<meta::Status> },
}

/// The certificates that a client presented, in a request's extensions; the handshake has checked their chain.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<Vec<CertificateDer<'static>>>);

/// The address a request came from, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub std::net::SocketAddr);

/// A running API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    engine: Arc<Engine>,
    stop: CancellationToken,
}

impl ApiServer {
    /// Fills the cache from the store and creates what every cluster has. Runs until `stop` is cancelled.
    ///
    /// # Errors
    /// The store cannot be read, or a bootstrap object cannot be created.
    pub async fn start(config: Config, store: Arc<dyn Store>, stop: CancellationToken) -> Result<Self, StartError> {
        let cache = Cache::start(store.clone(), stop.clone()).await?;
        let engine = Arc::new(Engine::new(config, store, cache));
        bootstrap::run(&engine).await?;
        crate::flow::start(&engine, stop.clone());
        crate::admission::policies::start(&engine, stop.clone());
        own_service::start(&engine, &stop);
        crate::custom::start(&engine, stop.clone());
        crate::aggregation::start(&engine, stop.clone());
        Ok(Self { engine, stop })
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// A client that calls this server in memory as one user: no socket and no TLS, every other step of the path.
    pub fn client_as(&self, user: User) -> kube::Client {
        kube::Client::new(InMemory { engine: self.engine.clone(), user }, "default")
    }

    /// Serves HTTPS (HTTP/1.1 and HTTP/2) until the server stops; open requests get a short time to finish.
    ///
    /// # Errors
    /// None after the listener works; accept errors are logged and survived.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>) -> std::io::Result<()> {
        let acceptor = TlsAcceptor::from(tls);
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, address)) => {
                    let server = self.clone();
                    let acceptor = acceptor.clone();
                    connections.spawn(async move {
                        if let Err(error) = server.connection(socket, address, acceptor).await {
                            tracing::debug!(%address, error, "a connection ended with an error");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
        connections.close();
        if tokio::time::timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
            tracing::info!(open = connections.len(), "closing connections that did not finish");
        }
        Ok(())
    }

    async fn connection(
        &self,
        socket: TcpStream,
        address: std::net::SocketAddr,
        acceptor: TlsAcceptor,
    ) -> Result<(), BoxError> {
        socket.set_nodelay(true)?;
        let tls = tokio::time::timeout(TLS_HANDSHAKE_MAX, acceptor.accept(socket)).await??;
        let certificates = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let certificates = PeerCertificates(Arc::new(certificates));
        let engine = self.engine.clone();
        let service = tower::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (engine, certificates) = (engine.clone(), certificates.clone());
            async move {
                let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
                request.extensions_mut().insert(certificates);
                request.extensions_mut().insert(PeerAddress(address));
                Ok::<_, std::convert::Infallible>(stack::answer(engine, request).await)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_header_list_size(HEADERS_BYTES_MAX).max_concurrent_streams(STREAMS_MAX);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), TowerToHyperService::new(service));
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

/// The server as a tower service for one user.
#[derive(Clone)]
struct InMemory {
    engine: Arc<Engine>,
    user: User,
}

impl<B> Service<Request<B>> for InMemory
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        request.extensions_mut().insert(LocalUser(self.user.clone()));
        let engine = self.engine.clone();
        // A task of its own: the client's buffer polls its service from one task, which must not wait for a verb.
        Box::pin(async move { Ok(stack::answer(engine, request).await) })
    }
}
