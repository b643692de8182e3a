// Numbers as people read and write them. Nothing is computed here but the text.

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const DIGITS = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
const SUFFIXES: readonly [number, string][] = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
];

/** A whole number with its thousands set apart. */
export function count(value: number): string {
  return GROUPED.format(value);
}

/** Three digits that matter. */
export function digits(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e15 || size < 1e-3)) return power(value);
  return size >= 1000 ? GROUPED.format(Number(value.toPrecision(3))) : DIGITS.format(value);
}

/** 3.2 x 10^21, in the script's own signs. */
export function power(value: number): string {
  const [factor, exponent] = value.toExponential(2).split("e");
  const raised = [...String(Number(exponent))].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
  return `${factor} × 10${raised.join("")}`;
}

/** 10.5B. */
export function short(value: number): string {
  const [unit, suffix] = SUFFIXES.find(([unit]) => Math.abs(value) >= unit) ?? [1, ""];
  return Math.abs(value) >= 1e15 ? power(value) : `${DIGITS.format(value / unit)}${suffix}`;
}

export function percent(share: number): string {
  return `${DIGITS.format(share * 100)} %`;
}

export function dollars(value: number): string {
  return Math.abs(value) >= 1e7 ? `$${short(value)}` : `$${digits(value)}`;
}

/** Hours, or days where it is many. */
export function hours(value: number): string {
  if (value >= 72) return `${digits(value / 24)} days`;
  return value < 1 ? `${digits(value * 60)} min` : `${digits(value)} h`;
}

/** Bytes as vendors of disks count them. */
export function bytes(value: number): string {
  if (value > 0 && value < 1e3) return `${digits(value)} bytes`;
  const [unit, name] = value >= 1e12 ? [1e12, "TB"] : value >= 1e9 ? [1e9, "GB"] : value >= 1e6 || !value ? [1e6, "MB"] : [1e3, "kB"];
  return `${digits(value / unit)} ${name}`;
}

/** Bytes as memory counts them. */
export function gib(value: number): string {
  return `${digits(value / 2 ** 30)} GiB`;
}

/** A learning rate. */
export function rate(value: number): string {
  return value === 0 ? "0" : value.toExponential(2).replace(/\.?0+e/, "e");
}

/** What a person writes for a number: `10.5B`, `3e-4`, `1,000`; undefined where it is none. */
export function parse(text: string): number | undefined {
  const found = /^([-+]?[\d,_ ]*\.?\d*(?:e[-+]?\d+)?)\s*([kmbt])?$/i.exec(text.trim());
  if (!found?.[1] || !/\d/.test(found[1])) return undefined;
  const unit = SUFFIXES.find(([, suffix]) => suffix.toLowerCase() === found[2]?.toLowerCase())?.[0] ?? 1;
  const value = Number(found[1].replace(/[,_ ]/g, ""));
  // 10.48576 x 10^9 is a whole number only after rounding.
  return Number.isFinite(value) ? Number((value * unit).toPrecision(15)) : undefined;
}

/** The shortest text that `parse` reads back to the same number. */
export function written(value: number): string {
  for (const [unit, suffix] of SUFFIXES) {
    const text = `${value / unit}${suffix}`;
    if (value >= unit && text.length <= 10 && parse(text) === value) return text;
  }
  return String(value);
}
