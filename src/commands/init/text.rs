//! The text of a new plan, from what is known of the machine.

use toml_edit::Value;

use crate::cli::{InitArgs, InitWorkload};
use crate::commands::launcher::IMAGE;
use crate::plan::server::Launcher;
use crate::plan::tier::BASELINE;
use crate::units::grouped;

const GIB: f64 = 1_073_741_824.0;

/// KV of a token where the model's is not known: Llama-3-8B's, bytes.
const USUAL_KV_BYTES: f64 = 131_072.0;

/// Prompt lengths worth comparing: 4, 16 and 64 chunks of 256 tokens, and a question of 32.
const PROMPT_LENS: [u64; 3] = [1056, 4128, 16_416];

/// Most RAM of a tier, GiB, and of a disk.
const MAX_RAM_GIB: f64 = 64.0;
const MAX_DISK_GIB: f64 = 200.0;

/// Prompts of the longest length that a tier holds beside a pass's documents: canaries, those of which
/// a chunk differs, and probes.
const OWN_PROMPTS: u64 = 8;

/// RAM that a tier on a disk or in Redis moves its chunks through, GiB.
const STAGING_GIB: u64 = 5;

/// What is known of this machine.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Names and memory of the GPUs, bytes.
    pub gpus: Vec<(String, u64)>,
    /// RAM that is free; absent: unknown.
    pub ram_bytes: Option<u64>,
    /// What may still be written in this folder; absent: unknown.
    pub disk_bytes: Option<u64>,
    /// How servers are started.
    pub server: Server,
    /// The model.
    pub model: Model,
}

/// How servers are started.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// The launcher.
    pub launcher: Launcher,
    /// Why this one.
    pub why: String,
}

/// What is known of a model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Its name on the hub.
    pub name: String,
    /// Where it is on this machine, in words; absent: nowhere.
    pub place: Option<&'static str>,
    /// The longest prompt and answer together, tokens.
    pub positions: Option<u64>,
    /// KV of a token, bytes.
    pub kv_bytes: Option<f64>,
}

/// The structure of a workload, and how much of it fits the machine.
struct Load {
    prompt_lens: Vec<u64>,
    gen_len: u64,
    requests: u64,
    /// The longest prompt and answer together, tokens.
    longest: u64,
    /// KV that a tier must hold: of all documents or sessions of a pass, and of labrun's own prompts, GiB.
    needed_gib: f64,
}

impl Facts {
    /// The machine, in a line.
    pub(super) fn summary(&self) -> String {
        let gib = |bytes: u64| format!("{:.0} GiB", bytes as f64 / GIB);
        let gpu = match self.gpus.as_slice() {
            [] => "no NVIDIA GPU".to_owned(),
            [(name, bytes), ..] => {
                format!("{} x {name} ({} each)", self.gpus.len(), gib(*bytes))
            }
        };
        let ram = self.ram_bytes.map(|bytes| format!("{} of RAM", gib(bytes)));
        let disk = self
            .disk_bytes
            .map(|bytes| format!("{} of disk", gib(bytes)));
        let free: Vec<String> = ram.into_iter().chain(disk).collect();
        if free.is_empty() {
            return gpu;
        }
        format!("{gpu}, {} free", free.join(" and "))
    }

    fn is_simulated(&self) -> bool {
        self.server.launcher == Launcher::Sim
    }

    /// RAM for a tier, GiB: half of what is free. A simulated one takes none.
    fn ram_gib(&self) -> f64 {
        if self.is_simulated() {
            return 16.0;
        }
        let free = self.ram_bytes.map_or(16.0, |bytes| bytes as f64 / GIB);
        (free / 2.0).clamp(1.0, MAX_RAM_GIB)
    }

    /// Disk for a tier, GiB: half of what is free.
    fn disk_gib(&self) -> f64 {
        let free = self.disk_bytes.map_or(64.0, |bytes| bytes as f64 / GIB);
        (free / 2.0).clamp(1.0, MAX_DISK_GIB)
    }

    /// Bytes of KV a token; the simulator's own where it serves.
    fn kv_bytes(&self) -> f64 {
        match self.model.kv_bytes {
            Some(bytes) if !self.is_simulated() => bytes,
            _ => USUAL_KV_BYTES,
        }
    }

    /// The load whose documents fit the smallest of the tiers: fewer lengths first, then fewer requests.
    fn load(&self, args: &InitArgs) -> Load {
        let gen_len = if self.is_simulated() { 16 } else { 100 };
        let turns = turns(args.workload);
        let growth = (turns - 1) * (turn_len(args.workload) + gen_len);
        let positions = self.model.positions.unwrap_or(32_768);
        let longest = |len: u64| len + growth + gen_len;
        let mut lens: Vec<u64> = PROMPT_LENS.to_vec();
        lens.retain(|len| longest(*len) <= positions);
        if lens.is_empty() {
            lens.push((positions / 2).max(64));
        }
        if self.is_simulated() {
            lens.truncate(2);
        }
        let uses_disk = args.tiers.iter().any(|tier| tier == "disk");
        let room = if uses_disk {
            self.ram_gib().min(self.disk_gib())
        } else {
            self.ram_gib()
        };
        let needed = |len: u64, documents: u64| {
            let tokens = longest(len) * (documents + OWN_PROMPTS);
            tokens as f64 * self.kv_bytes() / GIB * 1.1
        };
        let mut documents = if self.is_simulated() { 6 } else { 24 };
        let last = |lens: &[u64]| lens.last().copied().unwrap_or(64);
        while lens.len() > 1 && needed(last(&lens), documents) > room {
            lens.pop();
        }
        while documents > 4 && needed(last(&lens), documents) > room {
            documents -= 2;
        }
        // A session is a document that is asked once a turn.
        let requests = documents * turns;
        Load {
            longest: longest(last(&lens)),
            needed_gib: needed(last(&lens), documents),
            prompt_lens: lens,
            gen_len,
            requests,
        }
    }
}

fn turns(workload: InitWorkload) -> u64 {
    match workload {
        InitWorkload::Rag => 1,
        InitWorkload::Agent => 5,
        InitWorkload::Chat => 4,
    }
}

fn turn_len(workload: InitWorkload) -> u64 {
    match workload {
        InitWorkload::Rag => 0,
        InitWorkload::Agent => 256,
        InitWorkload::Chat => 64,
    }
}

/// The plan.
pub(super) fn plan(args: &InitArgs, facts: &Facts) -> String {
    let load = facts.load(args);
    let mut text = format!(
        "# Written by `labrun init` for this machine: {}.\n\
         # `labrun plan FILE` shows what it would run; all keys: docs/plan.md.\n",
        plain(&facts.summary())
    );
    text.push_str(&format!(
        "model = {} # {}\n",
        quoted(&facts.model.name),
        of_model(facts)
    ));
    text.push_str(&matrix(args, &load));
    text.push_str(&format!(
        "\n[run]\nrequests = {} # per cell and cache state{}\n",
        load.requests,
        match turns(args.workload) {
            1 => String::new(),
            turns => format!(": {} sessions of {turns} turns", load.requests / turns),
        }
    ));
    text.push_str("states = [\"cold\", \"tier-hit\"] # nothing cached; then only the tier\n");
    text.push_str(&workload(args.workload));
    for tier in &args.tiers {
        text.push_str(&tier_table(tier, facts, &load));
    }
    text + &server(args, facts, &load)
}

fn matrix(args: &InitArgs, load: &Load) -> String {
    let mut tiers = vec![quoted(BASELINE)];
    let others = args.tiers.iter().map(|tier| tier.trim());
    tiers.extend(others.filter(|tier| *tier != BASELINE).map(quoted));
    let lens: Vec<String> = load.prompt_lens.iter().map(u64::to_string).collect();
    let what = match args.workload {
        InitWorkload::Rag => "tokens: chunks of 256, and a question of 32",
        InitWorkload::Agent | InitWorkload::Chat => "tokens of a session's first prompt",
    };
    format!(
        "\n[matrix] # every combination is a cell\n\
         tier = [{}] # the baseline is the GPU alone\n\
         prompt_len = [{}] # {what}\n\
         gen_len = [{}]\n\
         concurrency = [1] # requests in flight; add 8 for a busy server\n",
        tiers.join(", "),
        lens.join(", "),
        load.gen_len,
    )
}

fn workload(workload: InitWorkload) -> String {
    let keys = match workload {
        InitWorkload::Rag => "kind = \"shared-prefix\" # a long document, then a fresh question\n\
                              question_len = 32\n"
            .to_owned(),
        InitWorkload::Agent | InitWorkload::Chat => format!(
            "kind = \"multi-turn\" # sessions whose prompt grows with each turn\nturns = {}\n\
             turn_len = {} # tokens that a turn adds, beside the answer\n{}",
            turns(workload),
            turn_len(workload),
            match workload {
                InitWorkload::Agent =>
                    "system_len = 512 # instructions and tools, shared by all sessions\n",
                _ => "",
            }
        ),
    };
    format!("\n[workload.{}]\n{keys}", workload.name())
}

fn tier_table(tier: &str, facts: &Facts, load: &Load) -> String {
    let why = format!(
        "the prompts of a pass and labrun's own are {:.1} GiB of KV",
        load.needed_gib
    );
    let needed = load.needed_gib.ceil().max(1.0);
    let ram = format!(
        "max_local_cpu_size = {}",
        needed.min(facts.ram_gib().floor().max(1.0))
    );
    let staging = format!(
        "max_local_cpu_size = {} # GiB of RAM that chunks pass through",
        STAGING_GIB.min(facts.ram_gib() as u64).max(1)
    );
    match tier {
        "cpu" | "native" => format!("\n[tier.{tier}]\n{ram} # GiB of RAM; {why}\n"),
        "disk" => format!(
            "\n[tier.disk]\n{staging}\nmax_local_disk_size = {} # GiB; {why}\n",
            needed.min(facts.disk_gib().floor().max(1.0))
        ),
        "redis" => format!("\n[tier.redis]\n{staging}\n"),
        _ => String::new(),
    }
}

fn server(args: &InitArgs, facts: &Facts, load: &Load) -> String {
    let launcher = facts.server.launcher;
    let mut text = format!(
        "\n[server]\nlauncher = \"{}\" # {}\n",
        launcher.name(),
        plain(&facts.server.why)
    );
    match launcher {
        Launcher::Sim => {
            text.push_str("# On a machine with a GPU: \"docker\" with `image`, or \"process\".\n");
            return text;
        }
        Launcher::External => {
            text.push_str("url = \"http://127.0.0.1:8000\" # the server that runs already\n");
            return text;
        }
        Launcher::Docker => {
            text.push_str(&format!(
                "image = \"{IMAGE}\" # better a digest, name@sha256:...\nipc = \"host\"\n\
                 ulimits = {{ memlock = -1 }}\n"
            ));
            if args.tiers.iter().any(|tier| tier == "redis") {
                text.push_str("redis_image = \"redis:7\" # a new one for every cell\n");
            }
        }
        Launcher::Process => {}
    }
    let room = load.longest.next_multiple_of(256);
    let room = facts.model.positions.map_or(room, |most| room.min(most));
    text + &format!("\n[server.args] # arguments of `vllm serve`\nmax-model-len = {room}\n")
}

fn of_model(facts: &Facts) -> String {
    let model = &facts.model;
    let mut about = match (model.place, facts.server.launcher) {
        (_, Launcher::Sim) => "a name: the simulator loads no model".to_owned(),
        (Some(place), _) => place.to_owned(),
        (None, _) => "not in Hugging Face's cache: the first start downloads it".to_owned(),
    };
    if let (Some(positions), false) = (model.positions, facts.is_simulated()) {
        about.push_str(&format!("; takes {} tokens", grouped(positions)));
    }
    about
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Text as a comment holds it.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::matrix::Matrix;
    use crate::plan::Plan;

    fn args(tiers: &[&str], workload: InitWorkload) -> InitArgs {
        InitArgs {
            file: PathBuf::from("mine.toml"),
            model: None,
            tiers: tiers.iter().map(|tier| (*tier).to_owned()).collect(),
            workload,
            launcher: None,
            config: None,
        }
    }

    fn facts(launcher: Launcher, positions: Option<u64>, ram_gib: u64) -> Facts {
        Facts {
            gpus: match launcher {
                Launcher::Sim => Vec::new(),
                _ => vec![("NVIDIA H100 80GB HBM3".to_owned(), 80 << 30)],
            },
            ram_bytes: Some(ram_gib << 30),
            disk_bytes: Some(900 << 30),
            server: Server {
                launcher,
                why: "there is one".to_owned(),
            },
            model: Model {
                name: "org/tiny".to_owned(),
                place: Some("in Hugging Face's cache"),
                positions,
                kv_bytes: Some(57_344.0),
            },
        }
    }

    #[test]
    fn a_plan_for_a_gpu_and_one_for_the_simulator() {
        let gpu = facts(Launcher::Docker, Some(32_768), 200);
        let sim = facts(Launcher::Sim, None, 8);
        let rag = args(&["cpu", "redis"], InitWorkload::Rag);
        let agent = args(&["cpu", "disk"], InitWorkload::Agent);
        insta::assert_snapshot!(format!("{}\n{}", plan(&rag, &gpu), plan(&agent, &sim)));
    }

    #[test]
    fn every_plan_is_valid_and_fits_model_and_memory() {
        for launcher in [
            Launcher::Sim,
            Launcher::Process,
            Launcher::Docker,
            Launcher::External,
        ] {
            for workload in [InitWorkload::Rag, InitWorkload::Agent, InitWorkload::Chat] {
                for (positions, ram_gib) in [(None, 4), (Some(2048), 64), (Some(131_072), 500)] {
                    let facts = facts(launcher, positions, ram_gib);
                    let text = plan(&args(&["cpu", "disk", "redis", "native"], workload), &facts);
                    let plan =
                        Plan::parse(&text, "mine.toml").unwrap_or_else(|wrong| panic!("{wrong}"));
                    let cells = Matrix::expand(&plan).unwrap().cells;
                    assert!(!cells.is_empty());
                    let longest = cells
                        .iter()
                        .map(|cell| cell.coordinates.prompt_len.get())
                        .max();
                    assert!(
                        u64::from(longest.unwrap()) < positions.unwrap_or(32_768),
                        "{text}"
                    );
                    let pool = plan.variants[0].resolved.tiers["cpu"].ram_gib();
                    assert!(
                        launcher == Launcher::Sim || pool <= ram_gib as f64 / 2.0,
                        "{text}"
                    );
                }
            }
        }
    }
}
