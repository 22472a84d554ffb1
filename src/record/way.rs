//! The one table of the ways in a pass's ledger: their names in files, and what they are in words.

use std::fmt;

/// Which way something moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// From the tier towards the GPU.
    Load,
    /// From the GPU towards the tier.
    Store,
}

macro_rules! ways {
    ($($variant:ident = $name:literal $direction:ident $words:literal;)+) => {
        /// One leg of the way between a tier and the GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Way {
            $(#[doc = $words] $variant,)+
        }

        impl Way {
            /// All of them.
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in files.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Where the bytes went, in words.
            pub(crate) fn words(self) -> &'static str {
                match self {
                    $(Self::$variant => $words,)+
                }
            }

            fn direction(self) -> Direction {
                match self {
                    $(Self::$variant => Direction::$direction,)+
                }
            }
        }
    };
}

ways! {
    DiskRead = "disk-read" Load "read from disk";
    DiskWrite = "disk-write" Store "written to disk";
    RedisRead = "redis-read" Load "read from Redis";
    RedisWrite = "redis-write" Store "written to Redis";
    ValkeyRead = "valkey-read" Load "read from Valkey";
    ValkeyWrite = "valkey-write" Store "written to Valkey";
    PortRead = "port-read" Load "read from the port";
    PortWrite = "port-write" Store "written to the port";
    NetworkRx = "network-rx" Load "received over the network";
    NetworkTx = "network-tx" Store "sent over the network";
    PcieRx = "pcie-rx" Load "moved to the GPU over PCIe";
    PcieTx = "pcie-tx" Store "moved from the GPU over PCIe";
    EngineLoad = "engine-load" Load "loaded by vLLM's own account";
    LmcacheLoad = "lmcache-load" Load "loaded to the GPU";
    LmcacheRam = "lmcache-ram" Load "from RAM";
    LmcacheSecondLayer = "lmcache-second-layer" Load "from the second layer";
    ConnectorLoad = "connector-load" Load "loaded by the connector's own counter";
    ConnectorHits = "connector-hits" Load "found";
}

impl Way {
    /// The way that files call `name`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|way| way.name() == name)
    }

    /// Whether it is between the host and what stores the KV, in the form that is stored.
    pub(crate) fn is_storage(self) -> bool {
        matches!(
            self,
            Self::DiskRead
                | Self::DiskWrite
                | Self::RedisRead
                | Self::RedisWrite
                | Self::ValkeyRead
                | Self::ValkeyWrite
                | Self::PortRead
                | Self::PortWrite
        )
    }

    /// Whether it leads from the tier to the GPU.
    pub(crate) fn is_load(self) -> bool {
        self.direction() == Direction::Load
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_found_by_its_own_name_and_the_readers_of_old_files_know_it() {
        let names: Vec<&str> = Way::ALL.iter().map(|way| way.name()).collect();
        for way in Way::ALL {
            assert_eq!(Way::named(way.name()), Some(*way), "a name is there twice");
        }
        // What runs of all versions hold: a name never changes.
        let stored = [
            "disk-read",
            "disk-write",
            "redis-read",
            "redis-write",
            "valkey-read",
            "valkey-write",
            "port-read",
            "port-write",
            "network-rx",
            "network-tx",
            "pcie-rx",
            "pcie-tx",
            "engine-load",
            "lmcache-load",
            "lmcache-ram",
            "lmcache-second-layer",
        ];
        for name in stored {
            assert!(names.contains(&name), "{name}");
        }
        assert_eq!(Way::named("disc-read"), None);
    }

    #[test]
    fn what_is_written_or_sent_is_a_store() {
        for way in Way::ALL {
            let ends = ["-write", "-tx", "-store"];
            let is_store = ends.iter().any(|end| way.name().ends_with(end));
            assert_eq!(way.is_load(), !is_store, "{way}");
        }
    }

    #[test]
    fn what_is_read_or_written_is_in_the_form_that_is_stored() {
        for way in Way::ALL {
            let ends = ["-read", "-write"];
            let is_storage = ends.iter().any(|end| way.name().ends_with(end));
            assert_eq!(way.is_storage(), is_storage, "{way}");
        }
    }
}
