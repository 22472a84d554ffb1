//! Bodies without a daemon.

use super::*;

#[test]
fn a_name_alone_takes_a_stray_variable_of_the_image_out() {
    let image = Image {
        env: vec![
            "LMCACHE_CHUNK_SIZE=7".into(),
            "PATH=/bin".into(),
            "LMCACHE_TRACK_USAGE=true".into(),
        ],
        ..Image::default()
    };
    let own = BTreeMap::from([("LMCACHE_TRACK_USAGE".to_owned(), "false".to_owned())]);
    assert_eq!(
        lines(&own, &image),
        ["LMCACHE_CHUNK_SIZE", "LMCACHE_TRACK_USAGE=false"]
    );
}

#[test]
fn gpus_become_requests_of_nvidias_runtime_or_of_cdi() {
    assert_eq!(device_requests(&Gpus::None), None);
    let all = device_requests(&Gpus::All).unwrap().remove(0);
    assert_eq!((all.count, all.driver), (Some(-1), None));
    assert_eq!(all.capabilities, Some(vec![vec!["gpu".to_owned()]]));
    let two = device_requests(&Gpus::Count(2)).unwrap().remove(0);
    assert_eq!((two.count, two.device_ids), (Some(2), None));
    let ids = Gpus::Ids(vec!["0".into(), "GPU-1".into()]);
    let ids = device_requests(&ids).unwrap().remove(0);
    assert_eq!(
        (ids.count, ids.device_ids.map(|ids| ids.len())),
        (None, Some(2))
    );
    let cdi = Gpus::Ids(vec!["nvidia.com/gpu=0".into()]);
    let cdi = device_requests(&cdi).unwrap().remove(0);
    assert_eq!(
        (cdi.driver.as_deref(), cdi.capabilities),
        (Some("cdi"), None)
    );
}

#[test]
fn ports_are_published_on_this_machine_alone() {
    let mut body = ContainerCreateBody::default();
    publish(&mut body, 8000, "");
    let bindings = body.host_config.unwrap().port_bindings.unwrap();
    let binding = bindings["8000/tcp"].as_ref().unwrap()[0].clone();
    assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(binding.host_port.as_deref(), Some(""), "one that is free");
}
