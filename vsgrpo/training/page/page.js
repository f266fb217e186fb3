// The menus of a run's page. Its data are {scenes: {name: {scan, strip, missing}}, steps: [{step, scenes: [{name, questions}]}]};
// a question has text, options, truth, marks, guesses (traces by guess) and answers, best first.
const data = JSON.parse(document.getElementById('data').textContent)
const byId = id => document.getElementById(id)
const dark = matchMedia('(prefers-color-scheme: dark)')
let question = null   // question that is shown
let chosen = 0        // index of its marked answer

const currentStep = () => data.steps[byId('step').value]
const currentScene = () => currentStep().scenes[byId('scene').value]

function fillMenu(id, names) {
  byId(id).replaceChildren(...names.map((name, i) => new Option(name, i)))
}

function element(tag, text) {
  const made = document.createElement(tag)
  made.textContent = text   // never as markup: a completion may contain HTML
  return made
}

function newStep() {
  fillMenu('scene', currentStep().scenes.map(scene => scene.name))
  newScene()
}

function newScene() {
  const {strip, missing} = data.scenes[currentScene().name]
  byId('strip').hidden = !strip
  if (strip) byId('strip').src = strip
  byId('missing').textContent = missing
  fillMenu('question', currentScene().questions.map(q => q.type + ': ' + q.text.slice(0, 90)))
  newQuestion()
}

function newQuestion() {
  question = currentScene().questions[byId('question').value]
  byId('text').textContent = [question.text, ...question.options].join('\n')
  byId('truth').textContent = question.truth
  byId('answers').replaceChildren(...question.answers.map(answerRow))
  choose(0)
}

function answerRow(answer, i) {
  const radio = document.createElement('input')
  radio.type = 'radio'
  radio.name = 'answer'
  radio.ariaLabel = 'completion ' + (i + 1)
  const pick = element('td', '')
  pick.append(radio)
  const reward = element('td', answer.reward)
  reward.title = answer.parts
  const row = document.createElement('tr')
  row.append(pick, reward, element('td', answer.advantage), element('td', answer.read), element('td', answer.text))
  row.onclick = () => choose(i)
  return row
}

function choose(i) {
  chosen = i
  const rows = [...byId('answers').rows]
  rows.forEach((row, k) => {
    row.className = k == i ? 'on' : ''
    row.querySelector('input').checked = k == i
  })
  const {guess, parts} = question.answers[i]
  byId('guess').textContent = guess + (parts ? ' (' + parts + ')' : '') + (question.missing ? ' · ' + question.missing : '')
  draw()
}

function draw() {
  const name = currentScene().name
  const {scan, missing} = data.scenes[name]
  const space = byId('space')
  space.className = scan ? '' : 'none'
  if (!scan) {
    if (window.Plotly) Plotly.purge(space)
    space.textContent = missing || 'no 3D view'
    return
  }
  if (!space.querySelector('.plot-container')) space.textContent = ''
  const opacity = byId('through').checked ? .45 : 1
  const read = question.answers[chosen].read
  const guess = Object.hasOwn(question.guesses, read) && question.guesses[read] || []
  const traces = [...scan.map(trace => ({...trace, opacity})), ...(question.marks || []), ...guess]
  Plotly.react(space, traces, layout(name, space.clientWidth < 500), {responsive: true, displaylogo: false})
}

function layout(name, narrow) {
  const axis = title => ({title: {text: title + ' (m)'}, gridcolor: dark.matches ? '#444' : '#ddd', zeroline: false})
  const far = narrow ? 1.6 : 1.1   // a narrow page shows the scene from farther away
  return {
    margin: {l: 0, r: 0, t: 0, b: 0},
    paper_bgcolor: 'rgba(0,0,0,0)',
    font: {color: dark.matches ? '#ddd' : '#222'},
    showlegend: false,
    uirevision: name,   // the camera stays until another scene is chosen
    scene: {
      aspectmode: 'data',
      camera: {eye: {x: .7*far, y: -1.1*far, z: 1.5*far}},
      xaxis: axis('x'), yaxis: axis('y'), zaxis: axis('z'),
    },
  }
}

if (data.steps.length) {
  byId('step').onchange = newStep
  byId('scene').onchange = newScene
  byId('question').onchange = newQuestion
  dark.onchange = byId('through').onchange = draw
  fillMenu('step', data.steps.map(step => step.step))
  newStep()
}
