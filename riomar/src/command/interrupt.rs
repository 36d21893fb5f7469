//! Ctrl-C and the request to end that service managers send.

/// Waits for SIGINT (Ctrl-C) or SIGTERM. Where signals cannot be received it waits for ever: the process then ends as the system does it.
pub async fn interrupted() {
    let terminated = async {
        #[cfg(unix)]
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
                return;
            }
            Err(error) => tracing::warn!(%error, "SIGTERM cannot be received"),
        }
        std::future::pending::<()>().await;
    };
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be received");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminated => {}
        () = interrupted => {}
    }
}
