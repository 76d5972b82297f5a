// Text to ids and back, as the tokenizers byte, char and word of unrolled do it.

const BLANKS = [" ", "\t", "\v", "\f", "\r"];

// Bytes of each id, and whether a space stands before it unless a blank or the text's beginning does.
function parsePieces(text) {
  return text.split(" ").map((word) => {
    const implied = word.startsWith("+");
    const hex = (implied ? word.slice(1) : word).replace("-", "");
    const bytes = Uint8Array.from(hex.match(/../g) || [], (pair) => parseInt(pair, 16));
    return { bytes, implied };
  });
}

function encodeBytes(text, state, config) {
  const values = config.values === "seen" ? new Map(state.values.map((value, id) => [value, id])) : null;
  return Array.from(new TextEncoder().encode(text), (byte) => (values ? values.get(byte) ?? values.size : byte));
}

function encodeCharacters(text, state, config) {
  const characters = Array.from(state.characters);
  const known = new Map(characters.map((character, id) => [character, id]));
  return Array.from(text, (character) => {
    if (known.has(character)) return known.get(character);
    if (config.unknown === "unk") return characters.length;
    throw new Error(`the character ${JSON.stringify(character)} is not in the model's vocabulary; leave it out`);
  });
}

function encodeWords(text, state, config, version) {
  const known = new Map(state.words.map((word, id) => [word, id]));
  const end = known.get(config.end_word);
  known.delete(config.end_word); // spelled out in a text it is an unknown word
  const blanks = version === 1 ? [" "] : BLANKS;
  const spaced = Array.from(text, (sign) => (blanks.includes(sign) ? " " : sign === "\n" ? " \n " : sign)).join("");
  return spaced.split(" ").filter(Boolean).map((word) => {
    if (word === "\n") return end;
    const id = known.get(word) ?? known.get(config.unk_word);
    if (id === undefined) throw new Error(`the word ${JSON.stringify(word)} is not in the model's vocabulary; leave it out`);
    return id;
  });
}

const ENCODERS = { byte: encodeBytes, char: encodeCharacters, word: encodeWords };

export class Tokenizer {
  // file: what tokenizer.json of a run holds. pieces: of the exported step's metadata.
  constructor(file, pieces) {
    this.file = file;
    this.pieces = parsePieces(pieces);
  }

  encode(text) {
    if (!text.isWellFormed()) throw new Error("the text is not valid Unicode; type it again");
    const { config, state, version } = this.file;
    return ENCODERS[config.name](text, state, config, version);
  }
}

// Text of tokens that come one by one; never part of a character.
export class Decoder {
  constructor(tokenizer) {
    this.pieces = tokenizer.pieces;
    this.closed = true;
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  push(id) {
    const { bytes, implied } = this.pieces[id];
    const space = implied && !this.closed ? " " : "";
    this.closed = bytes.length === 0 || [" ", "\n", ...BLANKS].includes(String.fromCharCode(bytes[bytes.length - 1]));
    return space + this.decoder.decode(bytes, { stream: true });
  }

  // What was read and is not shown.
  follow(ids) {
    for (const id of ids) this.push(id);
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  finish() {
    return this.decoder.decode();
  }
}
