//! The real client against the real sandbox.

use std::time::Duration;

use corptokend::api::Client;
use corptokend::domain::{Connection, Endpoint, Secret};
use corptokend::sandbox::{self, Options};

#[tokio::test]
async fn smoke() {
    let sandbox = sandbox::start(Options::default()).await.unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), sandbox.ca_pem()).unwrap();
    let connection = Connection {
        endpoint: Endpoint::new(&sandbox.endpoint()).unwrap(),
        proxy: None,
        ca_file: Some(ca.path().to_owned()),
        local_address: None,
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
    };
    let client = Client::new(connection).unwrap();
    let secret = Secret::new(zeroize::Zeroizing::new("s3".to_owned())).unwrap();
    let answer = client.ask(&"ding1".parse().unwrap(), &secret, &"corp1".parse().unwrap()).await;
    println!("{answer:?} {:?}", sandbox.calls());
    answer.outcome.unwrap();
    client.ask(&"ding1".parse().unwrap(), &secret, &"corp1".parse().unwrap()).await.outcome.unwrap();
    println!("{:?}", sandbox.calls());
    println!("{:?}", sandbox.totals());
    sandbox.stop().await;
    println!("{:?}", client.ask(&"ding1".parse().unwrap(), &secret, &"corp1".parse().unwrap()).await);
}
