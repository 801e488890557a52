//! The socket in the root through which `gc` and `check` reach the server that has it: one line of JSON in, one for
//! each event out. Only for who runs the server, or root.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use super::{EVENTS, Event, Maintenance, Order};

/// Longest order.
const MAX_ORDER: u64 = 4096;
/// An order is sent at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens at once, and takes orders until the server ends. A server that can't take any serves all the same.
pub(crate) fn listen(path: PathBuf, maintenance: Maintenance) -> impl Future<Output = ()> + Send {
    let listener = bind(&path);
    async move {
        match listener {
            Ok(listener) => take_orders(listener, maintenance).await,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "`gc` and `check` can't reach this server");
            }
        }
        // Where this fails the next server does it.
        let _ = fs::remove_file(path);
    }
}

async fn take_orders(listener: UnixListener, maintenance: Maintenance) {
    while let Some(accepted) = maintenance.end.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let maintenance = maintenance.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, maintenance).await {
                        tracing::debug!(%error, "the conversation with `gc` or `check` broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to take a connection for `gc` or `check`");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// The root's lock is held, so that a socket which is there is one that a crash left.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = at(path, |short| UnixListener::bind(short))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Socket names have at most 107 bytes, roots may have more: reaches the folder through its descriptor.
pub(super) fn at<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    work(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

async fn converse(stream: UnixStream, maintenance: Maintenance) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_ORDER));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let order: Order = match serde_json::from_str(&line) {
        Ok(order) => order,
        Err(error) => {
            let refused = Event::Failed(format!("the order is not understood: {error}"));
            return send(&mut writer, &refused).await;
        }
    };
    tracing::info!(?order, "maintenance ordered");
    let (sender, mut events) = mpsc::channel(EVENTS);
    let working = tokio::spawn(maintenance.carry_out(order, sender));
    while let Some(event) = events.recv().await {
        send(&mut writer, &event).await?;
    }
    working.await.map_err(io::Error::other)
}

async fn send(writer: &mut (impl tokio::io::AsyncWrite + Unpin), event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
