# One-dimensional rules for integrals over a standard normal, and an activation's values at their nodes.

"""
    Nodes

Values of one activation at many points: pre-activations go into `H`, which `evaluate!` replaces by f, with f' in `D`
and f'' in `S`. The expansion uses two columns, x and -x; `x`, `w` and `n` are nodes and weights of the
other rules, `breaks`, `centers` and `widths` what those of [`panels!`](@ref) go by.
"""
mutable struct Nodes
    H::Matrix{Float64}
    D::Matrix{Float64}
    S::Matrix{Float64}
    x::Vector{Float64}
    w::Vector{Float64}
    n::Int
    breaks::Vector{Float64}
    centers::Vector{Float64}
    widths::Vector{Float64}
end
Nodes() = Nodes(zeros(0, 2), zeros(0, 2), zeros(0, 2), Float64[], Float64[], 0, Float64[], Float64[], Float64[])

"Room for `rows` rows; grows once and stays."
function reserve!(nodes::Nodes, rows::Int)
    if size(nodes.H, 1) < rows
        rows = cld(max(rows, 2 * size(nodes.H, 1)), LANES) * LANES
        nodes.H, nodes.D, nodes.S = zeros(rows, 2), zeros(rows, 2), zeros(rows, 2)
        resize!(nodes.x, rows)
        resize!(nodes.w, rows)
    end
    return nodes
end

# Reached by a dynamic call, in which a large number would be boxed: the rows are those of nodes.n.
@noinline evaluate!(a::Activation, nodes::Nodes, column::Int) =
    activate!(a, Val(2), nodes.H, nodes.D, nodes.S, nodes.n, column)

const CUT = 9.0                          # x² φ(x) < 1e-16 beyond

"""
    panels!(nodes, reach, longest)

Gauss–Legendre panels on [-reach, reach] with weights φ(x): none crosses one of `nodes.breaks` or is longer than
`longest`, and near `nodes.centers` they shrink to `nodes.widths`.
"""
function panels!(nodes::Nodes, reach::Float64, longest::Float64)
    nodes.n = 0
    a = -reach
    while a < reach
        b = reach
        for t in nodes.breaks
            a < t < b && (b = t)
        end
        pieces = ceil(Int, (b - a) / longest)
        for i in 1:pieces
            split_panel!(nodes, a + (b - a) * (i - 1) / pieces, a + (b - a) * i / pieces)
        end
        a = b
    end
    # all loops are over multiples of LANES
    while nodes.n % LANES != 0
        add_node!(nodes, nodes.x[nodes.n], 0.0)
    end
    return nodes
end

function split_panel!(nodes::Nodes, a::Float64, b::Float64)
    for (c, width) in zip(nodes.centers, nodes.widths)
        distance = c < a ? a - c : c > b ? c - b : 0.0
        if b - a > max(0.8 * distance, 1.5 * width)
            m = (a + b) / 2
            split_panel!(nodes, a, m)
            split_panel!(nodes, m, b)
            return nothing
        end
    end
    half, mid = (b - a) / 2, (a + b) / 2
    for i in eachindex(PANEL_X)
        x = muladd(half, PANEL_X[i], mid)
        add_node!(nodes, x, half * PANEL_W[i] * φ(x))
    end
    return nothing
end

function add_node!(nodes::Nodes, x::Float64, w::Float64)
    nodes.n == length(nodes.x) && reserve!(nodes, max(2 * nodes.n, 512))
    nodes.n += 1
    nodes.x[nodes.n], nodes.w[nodes.n] = x, w
    return nothing
end

"Trapezoidal rule with weights φ(x) for functions of that bandwidth; that of x² φ(x) is 9.5."
function trapezoid!(nodes::Nodes, bandwidth::Float64)
    h = 2pi / (bandwidth + 9.5)
    J = ceil(Int, CUT / h)
    n = cld(2J + 1, LANES) * LANES
    reserve!(nodes, n)
    @inbounds for i in 1:n
        x = h * (i - 1 - J)
        nodes.x[i], nodes.w[i] = x, i > 2J + 1 ? 0.0 : h * φ(x)
    end
    nodes.n = n
    return nodes
end

"f, f' and f'' of `p` at r x + b for all nodes x, in the first columns of H, D and S."
function evaluate_at!(p::Neuron, nodes::Nodes, r::Float64, b::Float64)
    @inbounds @simd for i in 1:nodes.n
        nodes.H[i, 1] = muladd(r, nodes.x[i], b)
    end
    unknown(evaluate!)(p.activation, nodes, 1)
    return nothing
end

has_kinks(p::Neuron) = p.kind == rectified || p.kind == piecewise

"""
    is_sharp(p, r)

At that norm, panels that shrink towards h = 0, where our activations have their poles, are cheaper than a trapezoidal
rule. Where a user's function has its poles is not known.
"""
is_sharp(p::Neuron, r::Float64) =
    (p.kind == smooth || p.kind == cumulative) && bandwidth_at(p, r) > 250 && !(p.activation isa Custom)

"What panels in x must heed of f(r x + b), smoothed at the scale `s` of x."
function add_features!(nodes::Nodes, p::Neuron, r::Float64, b::Float64, s::Float64)
    r == 0 && return nothing
    if is_sharp(p, r)
        push!(nodes.centers, -b / r)
        push!(nodes.widths, max(s, min(32 / p.measured, 2.0) / abs(r)))
    end
    for kink in p.kinks
        s < 1e-13 ? push!(nodes.breaks, (kink - b) / r) : (push!(nodes.centers, (kink - b) / r); push!(nodes.widths, s))
    end
    return nothing
end

"Panels on [-reach, reach] for f(r x + b)."
function panels_for!(nodes::Nodes, p::Neuron, r::Float64, b::Float64, reach::Float64, longest::Float64)
    empty!(nodes.breaks)
    empty!(nodes.centers)
    empty!(nodes.widths)
    add_features!(nodes, p, r, b, 0.0)
    return panels!(nodes, reach, longest)
end

# Twenty nodes see a pole at the distance of half a panel to 1e-15, and exp(±4).
longest_panel(p::Neuron, r::Float64) = p.kind == rectified || is_sharp(p, r) ? 1.5 :
    p.kind == piecewise ? min(1.5, 8 / abs(r)) : min(1.5, 64 / bandwidth_at(p, r))

bandwidth_at(p::Neuron, r::Float64) = p.measured * abs(r)
