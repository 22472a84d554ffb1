//! GPUs, their driver, and the CUDA that it can run.

use nvml_wrapper::Nvml;

use super::line::Line;
use super::needs::Needs;

/// What NVML reports about this machine; an error where it cannot be loaded.
pub(super) struct Gpu {
    nvml: Result<Nvml, String>,
}

impl Gpu {
    /// Loads NVML.
    pub(super) fn look() -> Self {
        Self {
            nvml: Nvml::init().map_err(|error| error.to_string()),
        }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.count() > 0
    }

    fn count(&self) -> u32 {
        self.nvml
            .as_ref()
            .ok()
            .and_then(|nvml| nvml.device_count().ok())
            .unwrap_or(0)
    }

    /// The newest CUDA that the driver runs, major and minor.
    pub(super) fn cuda(&self) -> Option<(i32, i32)> {
        let version = self.nvml.as_ref().ok()?.sys_cuda_driver_version().ok()?;
        Some((version / 1000, version % 1000 / 10))
    }

    /// The line of GPUs, their driver and CUDA.
    pub(super) fn lines(&self, needs: &Needs) -> Vec<Line> {
        let level = Needs::level(needs.engine);
        let fix = "install NVIDIA's driver; without a GPU use `launcher = \"sim\"`";
        let line = match &self.nvml {
            Err(error) => Line::of("GPU", level, format!("no NVML: {error}"), fix),
            Ok(_) if self.count() == 0 => Line::of("GPU", level, "NVML knows no GPU", fix),
            Ok(nvml) => {
                let driver = nvml
                    .sys_driver_version()
                    .unwrap_or_else(|_| "unknown".to_owned());
                let name = nvml.device_by_index(0).and_then(|device| device.name());
                let name = name.unwrap_or_else(|_| "unknown".to_owned());
                let cuda = self.cuda().map_or(String::new(), |(major, minor)| {
                    format!(", CUDA up to {major}.{minor}")
                });
                Line::good(
                    "GPU",
                    format!("{} x {name}, driver {driver}{cuda}", self.count()),
                )
            }
        };
        vec![line]
    }
}
