use std::time::Instant;
use tacit_torus::c64;
use tacit_torus::fft::*;
fn median(mut f: impl FnMut(usize), per: usize) -> f64 {
    let mut times = Vec::new();
    for _ in 0..60 {
        let t = Instant::now();
        for i in 0..per {
            f(i)
        }
        times.push(t.elapsed().as_secs_f64() * 1e6 / per as f64);
    }
    times.sort_by(f64::total_cmp);
    times[0]
}
fn main() {
    for n in [512usize, 2048] {
        let fft = Fft::new(n);
        let mut fs = fft.scratch();
        let vals: Vec<u64> = (0..n as u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let mut f = vec![c64::default(); n / 2];
        let d = Digit::new(14, 2, 1);
        println!("n={n} digit {:.2}", median(|_| fft.forward_digit(&mut f, &vals, d, &mut fs), 200));
        println!("n={n} torus {:.2}", median(|_| fft.forward_torus(&mut f, &vals, &mut fs), 200));
        let g = f.clone();
        let rows: Vec<c64> = (0..5).flat_map(|_| g.clone()).collect();
        let mut out = rows.clone();
        println!("n={n} madd x5 {:.2}", median(|i| multiply_add(&mut out, &rows, &g, i % 50 == 0), 200));
        let mut o = vec![0u64; n];
        println!(
            "n={n} inverse {:.2}",
            median(
                |_| {
                    f.copy_from_slice(&g);
                    fft.add_inverse(&mut o, &mut f, 0, &mut fs)
                },
                200
            )
        );
    }
}
