//! What is told to apps in JSON, written as Go's encoder writes it.

use bytes::Bytes;
use trilby_component::{
    Metadata,
    json::{Style, write_string},
};

use crate::app::ConfigurationUpdate;

/// A string.
pub(super) fn write_text(json: &mut Vec<u8>, text: &str) {
    write_string(json, text, Style::Standard);
}

/// Members that are empty are left out, as Go leaves them.
pub(super) fn configuration_update(update: &ConfigurationUpdate<'_>) -> Bytes {
    let mut json = b"{\"id\":".to_vec();
    write_text(&mut json, update.id);
    json.extend_from_slice(b",\"items\":{");
    for (index, (key, item)) in update.items.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_text(&mut json, key);
        json.extend_from_slice(b":{");
        let mut separator: &[u8] = b"";
        for (name, text) in [("value", &item.value), ("version", &item.version)] {
            if !text.is_empty() {
                json.extend_from_slice(separator);
                write_text(&mut json, name);
                json.push(b':');
                write_text(&mut json, text);
                separator = b",";
            }
        }
        if !item.metadata.is_empty() {
            json.extend_from_slice(separator);
            json.extend_from_slice(b"\"metadata\":");
            write_metadata(&mut json, &item.metadata);
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"}}\n");
    json.into()
}

/// An object of strings; `null` if there are none.
pub(super) fn write_metadata(json: &mut Vec<u8>, metadata: &Metadata) {
    if metadata.is_empty() {
        return json.extend_from_slice(b"null");
    }
    for (index, (name, value)) in metadata.iter().enumerate() {
        json.push(if index == 0 { b'{' } else { b',' });
        write_text(json, name);
        json.push(b':');
        write_text(json, value);
    }
    json.push(b'}');
}
