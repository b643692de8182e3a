// Files that the page is given, and those that it gives away.

import chartStyle from "./chart.css";

/** Of what is opened, in bytes. */
const LARGEST = 8_000_000;

/** The text of a file; undefined where it is larger than anything that this page reads. */
export async function textOf(file: File): Promise<string | undefined> {
  return file.size > LARGEST ? undefined : file.text();
}

export const TOO_LARGE = `it has more than ${LARGEST / 1e6} MB`;

export function download(name: string, type: string, content: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  // The browser has the file by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A drawing that stands alone, light, with its style inside. */
export function svgFile(drawing: SVGElement, title: string): string {
  const copy = drawing.cloneNode(true) as SVGElement;
  const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
  style.textContent = `.chart{background:#fff;font-family:sans-serif}${plain(chartStyle)}`;
  const name = document.createElementNS("http://www.w3.org/2000/svg", "title");
  name.textContent = title;
  copy.prepend(name, style);
  // Markers of the template engine are no part of the drawing.
  const comments = document.createTreeWalker(copy, NodeFilter.SHOW_COMMENT);
  const found: Comment[] = [];
  while (comments.nextNode()) found.push(comments.currentNode as Comment);
  for (const comment of found) comment.remove();
  return new XMLSerializer().serializeToString(copy);
}

/** Colours as every reader of SVG knows them: no variables, and those of light surroundings. */
function plain(style: string): string {
  const light = style.replace(/light-dark\((#\w+), ?#\w+\)/g, "$1");
  const values = new Map([...light.matchAll(/(--\w+): ?(#\w+)/g)].map(([, name, value]) => [name, value]));
  return light.replace(/--\w+: ?#\w+;/g, "").replace(/var\((--\w+)\)/g, (_, name: string) => values.get(name) ?? "#000");
}
