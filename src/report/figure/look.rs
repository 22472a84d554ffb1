//! How a tier looks: the same in every figure, by colour and by shape.

use plotters::style::RGBColor;

/// Text.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Less important text and frames.
pub(super) const GREY: RGBColor = RGBColor(110, 110, 110);
/// Grid lines.
pub(super) const FAINT: RGBColor = RGBColor(226, 226, 226);
/// Behind the mark of simulated data.
pub(super) const MARK: RGBColor = RGBColor(240, 228, 66);

/// A marker's shape.
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

// Okabe & Ito, "Color Universal Design", 2008: told apart with any common colour blindness. Its
// yellow is left to the mark: as a line on white it is too faint.
const BLACK: RGBColor = RGBColor(0, 0, 0);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);

/// For tiers of other names: five shapes and three colours that the built-in ones leave, 6 pairs
/// before one repeats.
const SPARE_COLOURS: [RGBColor; 3] = [ORANGE, SKY, GREY];
const SPARE_SHAPES: [Shape; 2] = [Shape::Hexagon, Shape::Star];

/// How `tier` looks among `tiers`. The built-in tiers always look the same.
pub(super) fn look(tier: &str, tiers: &[String]) -> Look {
    let (colour, shape) = match tier {
        "baseline" => (BLACK, Shape::Circle),
        "cpu" => (BLUE, Shape::Square),
        "disk" => (VERMILION, Shape::Triangle),
        "redis" => (GREEN, Shape::Diamond),
        "native" => (PURPLE, Shape::TriangleDown),
        other => {
            let strangers = tiers.iter().filter(|tier| !is_built_in(tier));
            let at = strangers.take_while(|tier| tier.as_str() != other).count();
            (SPARE_COLOURS[at % 3], SPARE_SHAPES[at % 2])
        }
    };
    Look { colour, shape }
}

fn is_built_in(tier: &str) -> bool {
    matches!(tier, "baseline" | "cpu" | "disk" | "redis" | "native")
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
        let tiers = [
            "baseline", "cpu", "disk", "redis", "native", "a", "b", "c", "d", "e", "f",
        ]
        .map(str::to_owned);
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
