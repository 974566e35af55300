# Sliding along kinks: tangential parts, the weights of both sides, and steps that end where a kink is met.

slides(problem::FlowProblem) = problem.kinks !== nothing && !isempty(problem.kinks.active)

"The scaled normal of a kink, the derivative of its pre-activation, in `kinks.normal`; activations are in `workspace`."
function normal!(kinks::Kinks{T}, problem::FlowProblem{T}, c::Contact, θ) where {T}
    net, block, n = kinks.net, kinks.net.blocks[c.block], fill!(kinks.wide, zero(T))
    ws, k, r = net.crew.workers[1].workspace, sides(kinks, c), c.row
    Δ, e = kinks.above, kinks.below
    fill!(Δ, zero(T))
    Δ[k.first+c.unit-1] = one(T)
    for l in k.layer:-1:1
        layer, A = net.layers[l], layer_input(ws, block, l)
        fill!(e, zero(T))
        for j in 1:layer.width
            δ = Δ[j]
            δ == 0 && continue
            o = layer.offset + (j - 1) * layer.fan_in
            @inbounds for i in 1:layer.fan_in
                n[o+i] = δ * A[r, i]
                e[i] += δ * θ[o+i]
            end
            layer.bias && (n[bias_offset(layer)+j] = δ)
        end
        l == 1 && break
        D = ws.D[l-1]
        @inbounds for i in 1:layer.fan_in
            Δ[i] = e[i] * D[r, i]
        end
    end
    n = pull_back!(kinks.normal, kinks.whole, n)
    n .*= problem.root
    return n
end

# Activations and derivatives of the block that a contact is in, in the workspace of the first share; `last` is the
# block that is there.
function activations!(kinks::Kinks, θ, c::Contact, last::Int)
    c.block == last && return last
    forward!(kinks.net.crew.workers[1].workspace, kinks.net, θ, kinks.net.blocks[c.block], 1)
    return c.block
end

"""
Normals of the kinks slid along, at the parameters `θ`, as Q R, by modified Gram–Schmidt, twice. If derivatives were
`evaluated` there just before, a net with a single block still has its activations.
"""
function basis!(kinks::Kinks{T}, problem::FlowProblem{T}, θ, evaluated::Bool) where {T}
    kinks.known && return nothing
    m = length(kinks.active)
    room!(kinks.basis, m, problem.n)
    size(kinks.triangle, 1) < m && (kinks.triangle = zeros(T, 2m, 2m))
    known, last = true, evaluated && length(kinks.net.blocks) == 1 ? 1 : 0
    for (i, c) in enumerate(kinks.active)
        if sides(kinks, c).layer > 1
            last = activations!(kinks, θ, c, last)
            known = false
        end
        q = copyto!(kinks.basis[i], normal!(kinks, problem, c, θ))
        kinks.triangle[i, i] = orthogonalise!(q, kinks, i)
    end
    kinks.known = known
    return nothing
end

# What depends on other normals to so many digits cannot be told from them.
const DEPENDENT = 1e-6

"Take from `q` its part in the first i - 1 basis vectors and normalise what is left; its length, or zero if nothing is."
function orthogonalise!(q::Vector{T}, kinks::Kinks{T}, i::Int) where {T}
    R = kinks.triangle
    size(R, 1) >= i || (kinks.triangle = R = zeros(T, 2i, 2i))
    whole = norm(q)
    for j in 1:i-1
        R[j, i] = zero(T)
    end
    for _ in 1:2, j in 1:i-1
        a = dot(kinks.basis[j], q)
        R[j, i] += a
        add_scaled!(q, -a, kinks.basis[j])
    end
    left = norm(q)
    left > DEPENDENT * whole || (fill!(q, zero(T)); return zero(T))
    q ./= left
    return left
end

"Keep of the scaled gradient at `y` what is tangential to the kinks slid along; what each normal had goes to `share`."
function project_gradient!(g::Vector{T}, problem::FlowProblem{T}, y) where {T}
    kinks = problem.kinks::Kinks{T}
    basis!(kinks, problem, full(problem.net, parameters(problem, y)), true)
    m = length(kinks.active)
    share, R = resize!(kinks.share, m), kinks.triangle
    roundoff = 8 * eps(T) * maximum(abs, g)
    for i in 1:m
        share[i] = dot(kinks.basis[i], g)
        add_scaled!(g, -share[i], kinks.basis[i])
    end
    for i in m:-1:1
        for j in i+1:m
            share[i] -= R[i, j] * share[j]
        end
        share[i] = R[i, i] > 0 ? share[i] / R[i, i] : zero(T)
    end
    for i in eachindex(g)
        abs(g[i]) <= roundoff && (g[i] = zero(T))     # at a minimum at kinks nothing is left
    end
    return g
end

function tangential!(v::Vector{T}, kinks::Kinks{T}) where {T}
    for i in eachindex(kinks.active)
        add_scaled!(v, -dot(kinks.basis[i], v), kinks.basis[i])
    end
    return v
end

# (I - q qᵀ) H (I - q qᵀ), one q after the other, of the lower triangle.
function project_hessian!(H::Matrix{T}, problem::FlowProblem{T}, y) where {T}
    kinks = problem.kinks::Kinks{T}
    basis!(kinks, problem, full(problem.net, parameters(problem, y)), true)
    v, n = kinks.normal, problem.n
    for k in eachindex(kinks.active)
        q = kinks.basis[k]
        mul!(v, Symmetric(H, :L), q)
        a = dot(q, v) / 2
        add_scaled!(v, -a, q)
        for j in 1:n
            @inbounds @simd for i in j:n
                H[i, j] -= q[i] * v[j] + v[i] * q[j]
            end
        end
    end
    return H
end

function project_product!(out::Vector{T}, problem::FlowProblem{T}, y, v::Vector{T}) where {T}
    kinks = problem.kinks::Kinks{T}
    basis!(kinks, problem, full(problem.net, parameters(problem, y)), false)
    tangent = tangential!(copyto!(problem.v, v), kinks)
    problem.scaled && (tangent .*= problem.root)
    hvp!(out, problem.net, parameters(problem, y), tangent)
    problem.scaled && scale_gradient!(out, problem.root)
    tangential!(out, kinks)
    return nothing
end

function unscaled_maximum(g, root)
    largest, bad = 0.0, false
    @inbounds for i in eachindex(g)
        a = abs(Float64(g[i] / root[i]))
        bad |= !isfinite(a)
        largest = max(largest, a)
    end
    return bad ? NaN : largest
end

"""
    weights!(kinks, problem, y, g)

Gradient `g` at `y`, and in `kinks.weight` the weight of side 1 in the convex combination that stays on each kink slid
along. Where both sides do not point to the kink it is out of [0, 1].
"""
function weights!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g) where {T}
    value_and_gradient_at!(g, problem, y)
    m = length(kinks.active)
    resize!(kinks.weight, m)
    resize!(kinks.strength, m)
    m == 0 && return nothing
    θ, last = full(problem.net, parameters(problem, y)), 0
    for (i, c) in enumerate(kinks.active)
        pull, last = pull!(kinks, θ, c, last)
        for f in kinks.fellows
            f.leader == c && f.ratio != 0 || continue
            more, last = pull!(kinks, θ, f.contact, last)
            pull += abs(f.ratio) * more
        end
        kinks.strength[i] = pull
        kinks.weight[i] = side(kinks, c) - kinks.share[i] / kinks.strength[i]
        kinks.strength[i] > 0 && isfinite(kinks.weight[i]) || (kinks.weight[i] = T(Inf))
    end
    return nothing
end

# How many normals of its kink the gradient grows by from side 0 to side 1; `last` as for `activations!`.
function pull!(kinks::Kinks{T}, θ, c::Contact, last::Int) where {T}
    net = kinks.net
    ws = net.crew.workers[1].workspace
    if c.block != last
        last = activations!(kinks, θ, c, last)
        block_loss!(net.objective, Base.last(ws.E), ws, net.blocks[c.block], one(T) / net.n_samples)
    end
    return sides(kinks, c).jump * sensitivity(kinks, θ, c), last
end

# ∂L/∂a of the unit and the sample of a contact; that of the outputs is in E.
function sensitivity(kinks::Kinks{T}, θ, c::Contact) where {T}
    net, k, r = kinks.net, sides(kinks, c), c.row
    ws, e, Δ = net.crew.workers[1].workspace, kinks.below, kinks.above
    for o in 1:last(net.layers).width
        e[o] = last(ws.E)[r, o]
    end
    for l in length(net.layers):-1:k.layer+1
        layer = net.layers[l]
        for j in 1:layer.width
            Δ[j] = e[j] * ws.D[l][r, j]
        end
        for i in 1:layer.fan_in
            e[i] = zero(T)
        end
        for j in 1:layer.width, i in 1:layer.fan_in
            @inbounds e[i] += Δ[j] * θ[layer.offset+(j-1)*layer.fan_in+i]
        end
    end
    return e[k.first+c.unit-1]
end

"Pre-activations, and weights where there are any, at the part `s` of the trial step."
function look!(kinks::Kinks, problem::FlowProblem{T}, s::Float64) where {T}
    evaluate_step!(kinks.x, kinks.step, 0, kinks.degree, T(s))
    if isempty(kinks.active)
        forward_kinks!(kinks, kinks.x)
        empty!(kinks.weight)
    else
        scale!(kinks.y, problem, kinks.x)
        weights!(kinks, problem, kinks.y, kinks.g)
    end
    return violated(kinks)
end

"""
    meets_kinks!(kinks, cache, problem, state) -> Bool

Whether in the trial step a pre-activation reaches a kink, or should leave one that the flow slides along. If so the
step is cut to end where the first does, and `kinks.met` says which.
"""
function meets_kinks!(kinks::Kinks{T}, @nospecialize(cache::StepCache), problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    kinks.cut = false
    interpolate_step!(kinks.step, 0, kinks.degree, cache, problem, state)
    look!(kinks, problem, 0.0)
    set_margins!(kinks, state.reltol)
    keep!(kinks, true)
    early, late = 0.0, 0.0
    for s in (0.5, 1.0)
        if look!(kinks, problem, s)
            late = s
            break
        end
        keep!(kinks, true)
        early = s
    end
    if late == 0
        return_to_kinks!(kinks, problem, state)
        return false
    end
    keep!(kinks, false)
    for i in 1:60
        part, tiny = earliest!(kinks)
        s = i % 3 == 0 || part == 0 ? (early + late) / 2 : early + part * (late - early)
        early < s < late && !tiny || break
        if look!(kinks, problem, s)
            keep!(kinks, false)
            late = s
        else
            keep!(kinks, true)
            early = s
        end
    end
    kinks.cut = true
    stretch_step!(kinks.step, problem.n, kinks.degree, late)
    evaluate_step!(kinks.x, kinks.step, 0, kinks.degree, one(T))
    scale!(state.ynew, problem, kinks.x)
    state.h *= late
    reevaluate_trial!(problem, state)
    return_to_kinks!(kinks, problem, state)
    return true
end

"The polynomial of the first part `s` of a step, from that of the step."
function stretch_step!(c::Vector{T}, n::Int, degree::Int, s::Float64) where {T}
    for m in 1:degree, i in 1:n
        c[m*n+i] *= T(s)^m
    end
    return nothing
end

"Put the trial point back on the kinks slid along: those of deeper layers are curved."
function return_to_kinks!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    m = length(kinks.active)
    m == 0 && return nothing
    value_and_gradient_at!(kinks.g, problem, state.ynew)         # h and the basis at this point
    off = false
    a, R = resize!(kinks.share, m), kinks.triangle
    for (i, c) in enumerate(kinks.active)
        k = sides(kinks, c)
        a[i] = k.h[c.row, c.unit]
        off |= abs(a[i]) > k.noise
    end
    off || return nothing
    for i in 1:m
        for j in 1:i-1
            a[i] -= R[j, i] * a[j]
        end
        a[i] = R[i, i] > 0 ? a[i] / R[i, i] : zero(T)
        add_scaled!(state.ynew, -a[i], kinks.basis[i])
    end
    reevaluate_trial!(problem, state)
    return nothing
end
