//! Bodies without a daemon.

use super::*;
use crate::plan::docker_spec::Gpus;

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

#[test]
fn a_containers_secrets_hold_the_login_of_the_redis_that_it_is_to_use() {
    let plan = |redis_image: &str| {
        format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"redis\"]\nprompt_len = [1024]\n\
             gen_len = [4]\nconcurrency = [1]\nlabel = [\"rag\"]\n[workload.rag]\n\
             kind = \"shared-prefix\"\n[server]\nlauncher = \"docker\"\nimage = \"i\"\n\
             lmcache = \"multi-process\"\n{redis_image}"
        )
    };
    let mut settings = crate::config::Config::load(None).unwrap().settings;
    settings.redis.url = "redis://me:s3cret@10.0.0.1:6379".to_owned();
    let names = |text: &str| {
        let plan = crate::plan::Plan::parse(text, "t.toml").unwrap_or_else(|p| panic!("{p}"));
        let matrix = crate::matrix::Matrix::expand(&plan).unwrap();
        let cell = &matrix.cells.first().unwrap();
        let scope = LaunchScope {
            settings: &settings,
            mark: &leftovers::Mark::of_this_process("t"),
            folder: Path::new("/none"),
            scratch: Path::new("/none"),
            cancel: &tokio_util::sync::CancellationToken::new(),
        };
        let spec = cell.resolved.server.docker.as_ref().unwrap();
        let values = super::super::secrets::values(cell, spec, scope)
            .unwrap()
            .into_iter();
        let login = values.filter(|(name, _)| name.starts_with("LMCACHE_"));
        login.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!(names(&plan("")), ["s3cret", "me"]);
    // One of the cell's own has no password.
    assert!(names(&plan("redis_image = \"redis\"\n")).is_empty());
}

#[test]
fn lmcache_in_vllms_process_gets_a_folder_in_memory_for_its_metrics() {
    let body = |more: &str| {
        let text = format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [1024]\n\
             gen_len = [4]\nconcurrency = [1]\nlabel = [\"rag\"]\n[workload.rag]\n\
             kind = \"shared-prefix\"\n[server]\nlauncher = \"docker\"\nimage = \"i\"\n{more}"
        );
        let plan = crate::plan::Plan::parse(&text, "t.toml").unwrap_or_else(|p| panic!("{p}"));
        let matrix = crate::matrix::Matrix::expand(&plan).unwrap();
        let cell = &matrix.cells.first().unwrap();
        let mark = leftovers::Mark::of_this_process("t");
        let settings = crate::config::Config::load(None).unwrap().settings;
        let cancel = tokio_util::sync::CancellationToken::new();
        let basis = Basis {
            cell,
            spec: cell.resolved.server.docker.as_ref().unwrap(),
            scope: LaunchScope {
                settings: &settings,
                mark: &mark,
                folder: Path::new("/none"),
                scratch: Path::new("/none"),
                cancel: &cancel,
            },
            labels: &Labels::new(&mark, "c"),
            secrets: None,
            network: None,
        };
        let body = basis.server(&Image::default(), None, None, 8000).unwrap();
        let named = |line: &String| line.starts_with("PROMETHEUS_MULTIPROC_DIR=");
        let variable = body.env.unwrap().into_iter().find(named);
        (variable, body.host_config.unwrap().tmpfs)
    };
    let (variable, tmpfs) = body("lmcache = \"in-process\"\n");
    assert_eq!(
        variable.unwrap(),
        format!("PROMETHEUS_MULTIPROC_DIR={METRICS}")
    );
    assert_eq!(tmpfs.unwrap()[METRICS], "mode=1777");
    let (variable, tmpfs) = body("lmcache = \"multi-process\"\n");
    assert_eq!(
        (variable, tmpfs),
        (None, None),
        "it has an endpoint of its own"
    );
    let own = "lmcache = \"in-process\"\n[server.env]\nPROMETHEUS_MULTIPROC_DIR = \"/x\"\n";
    let (variable, tmpfs) = body(own);
    assert_eq!(variable.unwrap(), "PROMETHEUS_MULTIPROC_DIR=/x");
    assert_eq!(tmpfs, None);
}
