//! Field values of a GPU, several in one call: `nvmlDeviceGetFieldValues` with the scope that the
//! wrapper crate leaves at zero. The driver answers fields that belong together at once.

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::struct_wrappers::device::FieldValueSample;
use nvml_wrapper_sys::bindings::nvmlFieldValue_t;

/// A field, and what of it: a link, or [`ALL_LINKS`]; 0 where the field has no parts.
pub(crate) type Field = (u32, u32);

/// The sum over all NVLinks.
pub(crate) const ALL_LINKS: u32 = u32::MAX;
/// `NVML_FI_DEV_PCIE_COUNT_TX_BYTES`: bytes out of the GPU.
pub(crate) const PCIE_TX_BYTES: u32 = 197;
/// `NVML_FI_DEV_PCIE_COUNT_RX_BYTES`: bytes into the GPU.
pub(crate) const PCIE_RX_BYTES: u32 = 198;
/// `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX`: payload in KiB since the driver was loaded.
pub(crate) const NVLINK_TX_KIB: u32 = 138;
/// `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX`: the same, into the GPU.
pub(crate) const NVLINK_RX_KIB: u32 = 139;

/// One answer a field. The call as a whole fails where the library or the GPU does.
pub(crate) fn read(
    device: &Device<'_>,
    fields: &[Field],
) -> Result<Vec<Result<u64, NvmlError>>, NvmlError> {
    let ask = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let raw = |&(field, scope): &Field| {
        // SAFETY: a plain C struct of numbers, for which zeros are valid.
        let mut raw: nvmlFieldValue_t = unsafe { mem::zeroed() };
        (raw.fieldId, raw.scopeId) = (field, scope);
        raw
    };
    let mut values: Vec<nvmlFieldValue_t> = fields.iter().map(raw).collect();
    let count = i32::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the handle is a device's of this library, and `values` holds `count` structs.
    nvml_try(unsafe { ask(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.into_iter().map(number).collect())
}

fn number(raw: nvmlFieldValue_t) -> Result<u64, NvmlError> {
    Ok(match FieldValueSample::try_from(raw)?.value? {
        SampleValue::U32(value) => u64::from(value),
        SampleValue::U64(value) => value,
        SampleValue::I64(value) => u64::try_from(value).map_err(|_| NvmlError::NoData)?,
        SampleValue::F64(value) => value as u64,
    })
}

/// Fields of the NVLinks' bytes that answer. They are chosen once: every sum is over the same fields.
#[derive(Debug, Default)]
pub(crate) struct NvLinkBytes {
    fields: Option<Vec<Field>>,
}

impl NvLinkBytes {
    /// KiB out of the GPU and into it. `ask` reads fields; `links` are the links that are up. A
    /// driver that knows no sum over all links is asked link by link, and a silent link is
    /// left out.
    pub(crate) fn read(
        &mut self,
        links: impl FnOnce() -> Vec<u32>,
        mut ask: impl FnMut(&[Field]) -> Result<Vec<Result<u64, NvmlError>>, NvmlError>,
    ) -> Result<[u64; 2], NvmlError> {
        if let Some(fields) = &self.fields {
            let values = ask(fields)?;
            return sums(fields, values);
        }
        let whole = both(ALL_LINKS);
        let values = ask(&whole)?;
        if values.iter().all(Result::is_ok) {
            self.fields = Some(whole.to_vec());
            return sums(&whole, values);
        }
        let each: Vec<Field> = links().into_iter().flat_map(both).collect();
        if each.is_empty() {
            return Err(NvmlError::NotSupported);
        }
        let answered = ask(&each)?.into_iter().map(|value| value.is_ok());
        let answered: Vec<bool> = answered.collect();
        let pairs = each.chunks(2).zip(answered.chunks(2));
        let whole = pairs.filter(|(_, answered)| answered.iter().all(|is_answered| *is_answered));
        let fields: Vec<Field> = whole.flat_map(|(fields, _)| fields.to_vec()).collect();
        if fields.is_empty() {
            return Err(NvmlError::NotSupported);
        }
        let values = ask(&fields)?;
        let read = sums(&fields, values)?;
        self.fields = Some(fields);
        Ok(read)
    }
}

fn both(link: u32) -> [Field; 2] {
    [(NVLINK_TX_KIB, link), (NVLINK_RX_KIB, link)]
}

/// Out of the GPU and into it. A field that answered before and does not now spoils the sum.
fn sums(fields: &[Field], values: Vec<Result<u64, NvmlError>>) -> Result<[u64; 2], NvmlError> {
    let mut sums = [0_u64; 2];
    for (&(field, _), value) in fields.iter().zip(values) {
        let way = usize::from(field == NVLINK_RX_KIB);
        let value = value.map_err(|error| match error {
            NvmlError::GpuLost => NvmlError::GpuLost,
            _ => NvmlError::NoData,
        })?;
        sums[way] = sums[way].wrapping_add(value);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = Result<Vec<Result<u64, NvmlError>>, NvmlError>;

    /// A driver that answers `(field, link)` by `answer`.
    fn driver(answer: impl Fn(Field) -> Option<u64>) -> impl FnMut(&[Field]) -> Answer {
        move |fields: &[Field]| {
            let answers = fields.iter();
            Ok(answers
                .map(|field| answer(*field).ok_or(NvmlError::NotSupported))
                .collect())
        }
    }

    #[test]
    fn the_sum_over_all_links_is_asked_for_where_the_driver_knows_it() {
        let mut bytes = NvLinkBytes::default();
        let whole = |(field, link): Field| {
            (link == ALL_LINKS).then_some(if field == NVLINK_TX_KIB { 7 } else { 9 })
        };
        let no_links = || panic!("no link is asked for by itself");
        assert_eq!(bytes.read(no_links, driver(whole)).unwrap(), [7, 9]);
        assert_eq!(bytes.read(Vec::new, driver(whole)).unwrap(), [7, 9]);
    }

    #[test]
    fn an_older_driver_is_asked_link_by_link_and_a_silent_link_is_left_out() {
        let mut bytes = NvLinkBytes::default();
        // Link 2 answers for one direction only.
        let each = |(field, link): Field| match (link, field) {
            (ALL_LINKS, _) | (2, NVLINK_RX_KIB) => None,
            (link, NVLINK_TX_KIB) => Some(u64::from(link) + 1),
            (link, _) => Some(u64::from(link) * 100),
        };
        let links = || vec![0, 1, 2, 3];
        assert_eq!(bytes.read(links, driver(each)).unwrap(), [7, 400]);
        // A link that answered before and does not now would make the sum fall.
        let torn = |(field, link): Field| each((field, link)).filter(|_| link != 3);
        let error = bytes.read(links, driver(torn)).unwrap_err();
        assert!(matches!(error, NvmlError::NoData), "{error}");
        assert_eq!(bytes.read(links, driver(each)).unwrap(), [7, 400]);
    }

    #[test]
    fn a_gpu_without_nvlink_does_not_support_it() {
        let mut bytes = NvLinkBytes::default();
        for links in [vec![], vec![0]] {
            let error = bytes.read(|| links, driver(|_| None)).unwrap_err();
            assert!(matches!(error, NvmlError::NotSupported), "{error}");
        }
    }
}
