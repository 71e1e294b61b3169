/** Play, pause, speed and a slider over a finished request. */

import { byId, icon, setText } from "./dom.js";
import { seconds } from "./format.js";

/** A longer run is played faster, so that a replay takes no longer than this. */
const COMFORTABLE_S = 40;
/** Of the slider. */
const STEPS = 1000;

/** Make the controls; `onMoment(seconds)` is called when another moment is to be seen. */
export function playerView(onMoment) {
    const root = byId("player");
    const button = byId("play-button");
    const slider = byId("scrub");
    const speed = byId("speed");
    let lengthS = 0;
    let atS = 0;
    let isPlaying = false;
    let lastTick = null;

    button.addEventListener("click", () => (isPlaying ? pause() : play()));
    slider.addEventListener("input", () => {
        const share = Number(slider.value) / STEPS;
        isPlaying = false;
        move(share * lengthS);
    });

    function play() {
        if (atS >= lengthS) atS = 0;
        isPlaying = true;
        lastTick = null;
        paint();
        requestAnimationFrame(tick);
    }

    function pause() {
        isPlaying = false;
        paint();
    }

    function tick(time) {
        if (!isPlaying) return;
        const stepS = lastTick === null ? 0 : (time - lastTick) / 1000;
        lastTick = time;
        move(Math.min(lengthS, atS + stepS * Number(speed.value)));
        if (atS >= lengthS) pause();
        else requestAnimationFrame(tick);
    }

    function move(toS) {
        atS = toS;
        paint();
        onMoment(atS);
    }

    function paint() {
        slider.value = lengthS ? Math.round((atS / lengthS) * STEPS) : STEPS;
        const said = `${seconds(atS)} of ${seconds(lengthS)}`;
        slider.setAttribute("aria-valuetext", said);
        setText(byId("scrub-time"), said);
        const name = isPlaying ? "Pause" : atS >= lengthS ? "Play from the beginning" : "Play";
        if (button.getAttribute("aria-label") === name) return;
        button.setAttribute("aria-label", name);
        button.replaceChildren(icon(isPlaying ? "pause" : "play"));
    }

    return {
        /** Offer a replay of so many seconds, at its end. */
        offer(newLengthS) {
            lengthS = newLengthS;
            atS = lengthS;
            speed.value =
                ["1", "2", "4", "8"].find((one) => lengthS / Number(one) <= COMFORTABLE_S) ?? "8";
            root.hidden = false;
            paint();
        },
        withdraw() {
            isPlaying = false;
            root.hidden = true;
        },
    };
}
