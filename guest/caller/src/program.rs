//! Calls as bytes: a function's number, then its arguments. An argument is a byte, or a byte that says where it comes from: a place in memory that may
//! be written, what an earlier call returned or left there, or four bytes as they stand. The program is in hexadecimal.

/// Memory that calls read and write, 64 bytes for each place.
const SCRATCH_BYTES: usize = 64 * PLACES;
const PLACES: usize = 32;
const RESULTS: usize = 16;
/// More than any function has.
pub(crate) const MAX_ARGUMENTS: usize = 8;
/// A program of more calls is another one's.
const MAX_CALLS: usize = 64;
/// Instead of a function: 64 bytes for a place follow.
const FILL: u8 = 255;

/// A function by its number of arguments; what it returns is 0 where it returns nothing.
pub(crate) struct Function {
    pub(crate) n_arguments: usize,
    pub(crate) call: fn(&[u32; MAX_ARGUMENTS]) -> u32,
}

/// Makes the calls of a program, one after the other. Says how many.
pub(crate) fn run(hex: &str, functions: &[Function]) -> usize {
    let mut bytes = decoded(hex).into_iter();
    let mut scratch = vec![0u8; SCRATCH_BYTES];
    let (mut results, mut n_calls) = ([0u32; RESULTS], 0);
    while n_calls < MAX_CALLS {
        let Some(number) = bytes.next() else { break };
        if number == FILL {
            let place = usize::from(bytes.next().unwrap_or(0)) % PLACES;
            for (to, from) in scratch[64 * place..64 * (place + 1)].iter_mut().zip(&mut bytes) {
                *to = from;
            }
            continue;
        }
        let function = &functions[usize::from(number) % functions.len()];
        let mut arguments = [0u32; MAX_ARGUMENTS];
        for argument in &mut arguments[..function.n_arguments] {
            *argument = match bytes.next().unwrap_or(0) {
                // as a place's address
                n @ 128..160 => scratch.as_ptr() as u32 + 64 * u32::from(n - 128),
                n @ 160..176 => results[usize::from(n - 160)],
                // what was left at a place: its first word, or its second, where a result has its value
                n @ 176..208 => {
                    let at = 64 * usize::from(n % 16) + if n < 192 { 0 } else { 4 };
                    u32::from_le_bytes([scratch[at], scratch[at + 1], scratch[at + 2], scratch[at + 3]])
                }
                208.. => {
                    let mut next = || bytes.next().unwrap_or(255);
                    u32::from_le_bytes([next(), next(), next(), next()])
                }
                n => u32::from(n),
            };
        }
        results[n_calls % RESULTS] = (function.call)(&arguments);
        n_calls += 1;
    }
    n_calls
}

fn decoded(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
