//! What a container gets of its machine: ports and GPUs.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, DeviceRequest, PortBinding};

use crate::plan::docker_spec::Gpus;

/// Publishes `port` on 127.0.0.1; on a free port where `outside` is empty.
pub(super) fn publish(body: &mut ContainerCreateBody, port: u16, outside: &str) {
    let inside = format!("{port}/tcp");
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(outside.to_owned()),
    };
    body.exposed_ports = Some(vec![inside.clone()]);
    let host_config = body.host_config.get_or_insert_default();
    host_config.port_bindings = Some(HashMap::from([(inside, Some(vec![binding]))]));
}

/// The GPUs, as Docker is asked for them.
pub(super) fn device_requests(gpus: &Gpus) -> Option<Vec<DeviceRequest>> {
    let (count, device_ids) = match gpus {
        Gpus::None => return None,
        Gpus::All => (Some(-1), None),
        Gpus::Count(count) => (Some(i64::from(*count)), None),
        Gpus::Ids(ids) => (None, Some(ids.clone())),
    };
    // A name with `=` is CDI's (`nvidia.com/gpu=0`).
    let is_cdi = device_ids.iter().flatten().any(|id| id.contains('='));
    Some(vec![DeviceRequest {
        driver: is_cdi.then(|| "cdi".to_owned()),
        count,
        device_ids,
        capabilities: (!is_cdi).then(|| vec![vec!["gpu".to_owned()]]),
        options: None,
    }])
}
