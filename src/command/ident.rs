//! A command's id as protocols want it that take no text: a number, a UUID. The same for the same id.

use ring::digest;

/// 1 to 2³¹ − 1.
pub fn number(id: &str) -> u32 {
    let [a, b, c, d, ..] = digest(id);
    (u32::from_be_bytes([a, b, c, d]) >> 1).max(1)
}

/// A UUID (RFC 9562): 32 hexadecimal digits are one already, anything else becomes one of version 8.
pub fn uuid(id: &str) -> String {
    let is_hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = if is_hex { id.to_ascii_lowercase() } else { format!("{:032x}", version_8(digest(id))) };
    let mut text = String::with_capacity(36);
    for (place, digit) in digits.chars().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// RFC 9562, 5.8.
fn version_8(bytes: [u8; 16]) -> u128 {
    let custom = u128::from_be_bytes(bytes) & !((0xf << 76) | (0x3 << 62));
    custom | (0x8 << 76) | (0x2 << 62)
}

fn digest(id: &str) -> [u8; 16] {
    let mut first = [0; 16];
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    first.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_number_and_one_uuid() {
        assert_eq!(number("c1"), number("c1"));
        assert_ne!(number("c1"), number("c2"));
        assert!((1..=i32::MAX.unsigned_abs()).contains(&number("c1")));
        assert_eq!(uuid("0123456789ABCDEF0123456789abcdef"), "01234567-89ab-cdef-0123-456789abcdef");
        let made = uuid("c1");
        assert_eq!((made.len(), made.as_bytes()[14]), (36, b'8'));
        assert!(matches!(made.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{made}");
        assert_ne!(made, uuid("c2"));
    }
}
