const root = document.querySelector('app-root');

function show(services) {
  const list = document.createElement('dl');
  for (const [name, { status }] of Object.entries(services)) {
    const term = document.createElement('dt');
    const value = document.createElement('dd');
    term.textContent = name;
    value.textContent = status;
    value.className = status;
    list.append(term, value);
  }
  const heading = document.createElement('h1');
  heading.textContent = 'AlloDoc demo';
  root.replaceChildren(heading, list);
}

fetch('/api/v1/health')
  .then((answer) => answer.json())
  .then(({ services }) => show(services))
  .catch(() => show({ backend: { status: 'down' } }));
