// Draws the chosen question in the room. The data: {scan: traces, marks: traces of each question, extent: [low, high] of
// x, y, z}.
const data = JSON.parse(document.getElementById('data').textContent)
const space = document.getElementById('space')
const questions = document.querySelectorAll('tr.ask')
const dark = matchMedia('(prefers-color-scheme: dark)')
let chosen = 0

function draw() {
  const axis = (title, i) => ({title: {text: title + ' (m)'}, range: data.extent[i], gridcolor: dark.matches ? '#444' : '#ddd', zeroline: false})
  const far = space.clientWidth < 500 ? 1.9 : 1.35   // a narrow page shows the room from farther away
  const traces = [...data.scan.map(trace => ({...trace, opacity: .55})), ...data.marks[chosen]]
  const layout = {
    margin: {l: 0, r: 0, t: 0, b: 0},
    paper_bgcolor: 'rgba(0,0,0,0)',
    font: {color: dark.matches ? '#ddd' : '#222'},
    showlegend: false,
    uirevision: 1,   // the camera stays
    scene: {
      aspectmode: 'data',
      camera: {eye: {x: .7*far, y: -1.1*far, z: 1.5*far}},
      xaxis: axis('x', 0), yaxis: axis('y', 1), zaxis: axis('z', 2),
    },
  }
  Plotly.react(space, traces, layout, {responsive: true, displaylogo: false})
}

function choose(i) {
  chosen = i
  questions.forEach((row, k) => row.classList.toggle('on', k == i))
  draw()
}

questions.forEach((row, i) => row.onclick = () => choose(i))
dark.onchange = draw
choose(0)

// The film begins at its first full frame, each time; its approach can be seen by moving the slider.
const film = document.querySelector('video')
const start = Number(film.dataset.start)
const rewind = () => { film.currentTime = start }
if (film.readyState) rewind()
else film.addEventListener('loadedmetadata', rewind)
film.addEventListener('ended', () => { rewind(); film.play() })
