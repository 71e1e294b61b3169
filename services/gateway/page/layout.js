/**
 * A layered layout, left to right: which column and which height each item gets.
 *
 * Pure. An item's column is its depth, so that all that can run at the same time stands in
 * one column. The order within a column is that of the plan unless another one has fewer
 * crossings, so that a graph that grows does not jump. Lines that pass a column get a place
 * in it. Distances are in rows and columns; the view turns them into pixels.
 */

const SWEEPS = 4;
const RELAXATIONS = 12;
/** Room that a passing line takes, where an item takes 1. */
const LINE_ROOM = 0.4;

/**
 * Lay `items` ({key, needs: [key], column?}) out; each item may need only earlier ones.
 *
 * Returns {places: Map key → {column, row}, edges: [{from, to, via: [{column, row}]}],
 * columns, rows}.
 */
export function layOut(items) {
    const columnOf = assignColumns(items);
    const { cells, links, routes } = cut(items, columnOf);
    const columns = orderColumns(cells, links);
    const rowOf = assignRows(columns, links);
    return collect(items, columnOf, routes, rowOf, columns);
}

function assignColumns(items) {
    const columnOf = new Map();
    for (const item of items) {
        const below = item.needs
            .filter((need) => columnOf.has(need))
            .map((need) => columnOf.get(need));
        columnOf.set(item.key, item.column ?? 1 + Math.max(-1, ...below));
    }
    return columnOf;
}

/** Cut lines that pass a column into pieces; lines from the same item share theirs. */
function cut(items, columnOf) {
    const cells = items.map((item) => ({ key: item.key, column: columnOf.get(item.key), room: 1 }));
    const known = new Set();
    const links = [];
    const routes = [];
    for (const item of items) {
        for (const need of item.needs) {
            if (!columnOf.has(need)) continue;
            const via = [];
            let last = need;
            for (let column = columnOf.get(need) + 1; column < columnOf.get(item.key); column++) {
                const key = `${need}→${column}`;
                if (!known.has(key)) {
                    known.add(key);
                    cells.push({ key, column, room: LINE_ROOM });
                    links.push([last, key]);
                }
                via.push(key);
                last = key;
            }
            links.push([last, item.key]);
            routes.push({ from: need, to: item.key, via });
        }
    }
    return { cells, links, routes };
}

function orderColumns(cells, links) {
    const count = Math.max(0, ...cells.map((cell) => cell.column + 1));
    let columns = Array.from({ length: count }, () => []);
    for (const cell of cells) columns[cell.column].push(cell);
    const [before, after] = neighbours(links);
    let best = columns;
    let fewest = crossings(columns, before);
    for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep++) {
        columns = sweep % 2 ? swept(columns, after, true) : swept(columns, before, false);
        const found = crossings(columns, before);
        if (found < fewest) [best, fewest] = [columns, found];
    }
    return best;
}

function neighbours(links) {
    const before = new Map();
    const after = new Map();
    for (const [from, to] of links) {
        before.set(to, [...(before.get(to) ?? []), from]);
        after.set(from, [...(after.get(from) ?? []), to]);
    }
    return [before, after];
}

/** Sort each column by the mean place of its cells' neighbours; ties stay as they are. */
function swept(columns, near, backwards) {
    const sorted = columns.map((column) => [...column]);
    const placeOf = new Map();
    const indices = sorted.map((_, index) => index);
    for (const index of backwards ? indices.reverse() : indices) {
        const own = new Map(sorted[index].map((cell, place) => [cell.key, place]));
        const wish = (cell) => mean((near.get(cell.key) ?? []).map((key) => placeOf.get(key)));
        const wishes = new Map(
            sorted[index].map((cell) => [cell, wish(cell) ?? own.get(cell.key)]),
        );
        sorted[index].sort(
            (a, b) => wishes.get(a) - wishes.get(b) || own.get(a.key) - own.get(b.key),
        );
        sorted[index].forEach((cell, place) => placeOf.set(cell.key, place));
    }
    return sorted;
}

function crossings(columns, before) {
    let count = 0;
    for (let index = 1; index < columns.length; index++) {
        const placeOf = new Map(columns[index - 1].map((cell, place) => [cell.key, place]));
        const ends = columns[index].flatMap((cell, to) =>
            (before.get(cell.key) ?? []).map((key) => [placeOf.get(key), to]),
        );
        for (let a = 0; a < ends.length; a++) {
            for (let b = a + 1; b < ends.length; b++) {
                if ((ends[a][0] - ends[b][0]) * (ends[a][1] - ends[b][1]) < 0) count++;
            }
        }
    }
    return count;
}

/** Pull each cell towards its neighbours, again and again, as far as its column has room. */
function assignRows(columns, links) {
    const rowOf = new Map();
    for (const column of columns) {
        const heights = column.reduce((sum, cell) => sum + cell.room, 0);
        let top = -heights / 2;
        for (const cell of column) {
            rowOf.set(cell.key, top + cell.room / 2);
            top += cell.room;
        }
    }
    const [before, after] = neighbours(links);
    for (let round = 0; round < RELAXATIONS; round++) {
        for (const column of round % 2 ? [...columns].reverse() : columns) {
            const near = (cell) => [
                ...(before.get(cell.key) ?? []),
                ...(after.get(cell.key) ?? []),
            ];
            const wishes = column.map((cell) => {
                const rows = near(cell).map((key) => rowOf.get(key));
                return mean(rows) ?? rowOf.get(cell.key);
            });
            const rows = spread(
                wishes,
                column.map((cell) => cell.room),
            );
            column.forEach((cell, place) => rowOf.set(cell.key, rows[place]));
        }
    }
    return rowOf;
}

/**
 * Return the rows nearest to `wishes` (least squares) at which cells of these rooms do not
 * overlap: cells that would are merged into blocks that share their distance.
 */
export function spread(wishes, rooms) {
    const offsets = [];
    rooms.reduce((top, room) => (offsets.push(top + room / 2), top + room), 0);
    const blocks = [];
    wishes.forEach((wish, place) => {
        blocks.push({ sum: wish - offsets[place], count: 1 });
        while (blocks.length > 1 && at(blocks.at(-2)) > at(blocks.at(-1))) {
            const { sum, count } = blocks.pop();
            blocks.at(-1).sum += sum;
            blocks.at(-1).count += count;
        }
    });
    const bases = blocks.flatMap((block) => Array(block.count).fill(at(block)));
    return bases.map((base, place) => base + offsets[place]);
}

const at = (block) => block.sum / block.count;

function collect(items, columnOf, routes, rowOf, columns) {
    const shown = [...rowOf.values()];
    const top = Math.min(0.5, ...shown);
    const lift = (key) => rowOf.get(key) - top + 0.5;
    const places = new Map(
        items.map((item) => [item.key, { column: columnOf.get(item.key), row: lift(item.key) }]),
    );
    const columnAt = (key) => Number(key.split("→").at(-1));
    const edges = routes.map(({ from, to, via }) => ({
        from,
        to,
        via: via.map((key) => ({ column: columnAt(key), row: lift(key) })),
    }));
    const rows = Math.max(1, ...shown.map((row) => row - top + 1));
    return { places, edges, columns: columns.length, rows };
}

function mean(values) {
    const known = values.filter((value) => value !== undefined);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
