//! How a tier looks: the same in every figure, by colour and by shape.

use plotters::style::RGBColor;

use crate::plan::adapter::Adapter;
use crate::plan::tier::TierKind;

pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Text on a coloured ground, which a page must not colour as its own.
pub(super) const ON_COLOUR: RGBColor = RGBColor(33, 33, 33);
/// Less important text and frames.
pub(super) const GREY: RGBColor = RGBColor(110, 110, 110);
pub(super) const FAINT: RGBColor = RGBColor(226, 226, 226);
/// Behind the mark of simulated data.
pub(super) const MARK: RGBColor = RGBColor(240, 228, 66);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
    Hexagon,
    Star,
}

/// A colour and a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub colour: RGBColor,
    pub shape: Shape,
}

// Okabe & Ito, "Color Universal Design", 2008: distinguishable with any common colour blindness. Its
// yellow is left to the mark: as a line on white it is too faint.
const BLACK: RGBColor = RGBColor(0, 0, 0);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);

/// For tiers of other names: the shapes that the built-in ones leave, 6 pairs before one repeats.
const SPARE_COLOURS: [RGBColor; 3] = [ORANGE, SKY, GREY];
const SPARE_SHAPES: [Shape; 2] = [Shape::Hexagon, Shape::Star];

/// How `tier` looks among `tiers`. The built-in tiers always look the same.
pub(super) fn look(tier: &str, tiers: &[String]) -> Look {
    let (colour, shape) = match TierKind::built_in(tier) {
        Some(TierKind::Baseline) => (BLACK, Shape::Circle),
        Some(TierKind::Cpu) => (BLUE, Shape::Square),
        Some(TierKind::Disk) => (VERMILION, Shape::Triangle),
        Some(TierKind::Redis) => (GREEN, Shape::Diamond),
        Some(TierKind::CpuDisk) => (SKY, Shape::Square),
        Some(TierKind::Native) => (PURPLE, Shape::TriangleDown),
        Some(TierKind::NativeFs) => (VERMILION, Shape::TriangleDown),
        Some(TierKind::Simple) => (BLUE, Shape::Diamond),
        Some(TierKind::SimpleDisk) => (VERMILION, Shape::Diamond),
        Some(TierKind::Adapter(Adapter::Valkey)) => (GREEN, Shape::Square),
        Some(TierKind::Adapter(Adapter::S3)) => (GREEN, Shape::Triangle),
        Some(TierKind::Adapter(Adapter::Mooncake)) => (GREEN, Shape::TriangleDown),
        Some(TierKind::Connector) | None => {
            let others = tiers
                .iter()
                .filter(|tier| TierKind::built_in(tier).is_none());
            let at = others.take_while(|other| other.as_str() != tier).count();
            (SPARE_COLOURS[at % 3], SPARE_SHAPES[at % 2])
        }
    };
    Look { colour, shape }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_looks_the_same_whatever_is_beside_it() {
        let owned = |tiers: &[&str]| {
            tiers
                .iter()
                .map(|tier| (*tier).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            look("disk", &owned(&["disk"])),
            look("disk", &owned(&["baseline", "cpu", "disk"]))
        );
    }

    #[test]
    fn no_two_tiers_look_alike() {
        let built_in = TierKind::NAMED.map(|(name, _)| name);
        let tiers = [&built_in[..], &["a", "b", "c", "d", "e", "f"]].concat();
        let tiers: Vec<String> = tiers.into_iter().map(str::to_owned).collect();
        for (at, tier) in tiers.iter().enumerate() {
            for other in &tiers[at + 1..] {
                assert_ne!(
                    look(tier, &tiers),
                    look(other, &tiers),
                    "{tier} and {other}"
                );
            }
        }
    }
}
