# Sliding along kinks: tangential parts, the weights of both sides, and what happens where a kink is met.

slides(problem::FlowProblem) = problem.kinks !== nothing && !isempty(problem.kinks.active)

"The scaled normal of a kink, the derivative of its pre-activation, in `kinks.normal`; activations are in `workspace`."
function normal!(kinks::Kinks{T}, problem::FlowProblem{T}, c::Contact, θ) where {T}
    net, block, n = kinks.net, kinks.net.blocks[c.block], fill!(kinks.normal, zero(T))
    ws, k, r = net.shares[1].workspace, sides(kinks, c), c.row
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
    n .*= problem.root
    return n
end

# Activations and derivatives of the block that a contact is in, in the workspace of the first share; `last` is the
# block that is there.
function activations!(kinks::Kinks, θ, c::Contact, last::Int)
    c.block == last && return last
    forward!(kinks.net.shares[1].workspace, kinks.net, θ, kinks.net.blocks[c.block], 1)
    return c.block
end

"""
Normals of the kinks slid along, at the parameters `θ`, as Q R, by modified Gram–Schmidt, twice. If derivatives were
`evaluated` there just before, a net with a single block still has its activations.
"""
function basis!(kinks::Kinks{T}, problem::FlowProblem{T}, θ, evaluated::Bool) where {T}
    kinks.known && return nothing
    m = length(kinks.active)
    while length(kinks.basis) < m
        push!(kinks.basis, zeros(T, problem.n))
    end
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
    basis!(kinks, problem, parameters(problem, y), true)
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
    basis!(kinks, problem, parameters(problem, y), true)
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
    basis!(kinks, problem, parameters(problem, y), false)
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
        root[i] > 0 || continue
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
    net, θ = kinks.net, parameters(problem, y)
    ws, scale, last = net.shares[1].workspace, one(T) / net.n_samples, 0
    for (i, c) in enumerate(kinks.active)
        if c.block != last
            last = activations!(kinks, θ, c, last)
            block_loss!(net.objective, Base.last(ws.E), ws, net.blocks[c.block], scale)
        end
        pull = sides(kinks, c).jump * sensitivity(kinks, θ, c)
        for f in kinks.fellows
            f.leader == c && f.ratio != 0 || continue
            if f.contact.block != last
                last = activations!(kinks, θ, f.contact, last)
                block_loss!(net.objective, Base.last(ws.E), ws, net.blocks[f.contact.block], scale)
            end
            pull += abs(f.ratio) * sides(kinks, f.contact).jump * sensitivity(kinks, θ, f.contact)
        end
        kinks.strength[i] = pull
        kinks.weight[i] = side(kinks, c) - kinks.share[i] / kinks.strength[i]
        kinks.strength[i] > 0 && isfinite(kinks.weight[i]) || (kinks.weight[i] = T(Inf))
    end
    return nothing
end

# ∂L/∂a of the unit and the sample of a contact; that of the outputs is in E.
function sensitivity(kinks::Kinks{T}, θ, c::Contact) where {T}
    net, k, r = kinks.net, sides(kinks, c), c.row
    ws, e, Δ = net.shares[1].workspace, kinks.below, kinks.above
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

Whether in the trial step a pre-activation reaches a kink, or should leave one that the flow slides along. If so the step
is cut to end where the first does, and `kinks.met` says which.
"""
function meets_kinks!(kinks::Kinks{T}, @nospecialize(cache::StepCache), problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    kinks.cut = false
    interpolate_step!(kinks.step, 0, kinks.degree, cache, problem, state)
    look!(kinks, problem, 0.0)
    set_margins!(kinks, state.reltol)
    keep_early!(kinks)
    early, late = 0.0, 0.0
    for s in (0.5, 1.0)
        if look!(kinks, problem, s)
            late = s
            break
        end
        keep_early!(kinks)
        early = s
    end
    if late == 0
        return_to_kinks!(kinks, problem, state)
        return false
    end
    keep_late!(kinks)
    for i in 1:60
        part, tiny = earliest!(kinks)
        s = i % 3 == 0 || part == 0 ? (early + late) / 2 : early + part * (late - early)
        early < s < late && !tiny || break
        if look!(kinks, problem, s)
            keep_late!(kinks)
            late = s
        else
            keep_early!(kinks)
            early = s
        end
    end
    kinks.cut = true
    stretch_step!(kinks.step, problem.n, kinks.degree, late)
    evaluate_step!(kinks.x, kinks.step, 0, kinks.degree, one(T))
    scale!(state.ynew, problem, kinks.x)
    state.h *= late
    value_and_gradient_at!(state.gnew, problem, state.ynew)
    state.lossnew, state.gnormnew = problem.value[], problem.gnorm
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
    value_and_gradient_at!(state.gnew, problem, state.ynew)
    state.lossnew, state.gnormnew = problem.value[], problem.gnorm
    return nothing
end

# At a kink is what is as near to it as the points of steps that end there come; it is judged together.
const NEAR = 4                 # in units of rounding

"All that is at its kink at the point of the last forward pass, what was met and what has slid, in `kinks.judged`."
function gather!(kinks::Kinks)
    empty!(kinks.judged)
    for (b, block) in enumerate(kinks.net.blocks), (q, k) in enumerate(block.kinks)
        for u in 1:size(k.h, 2), r in 1:kinks.rows[b]
            @inbounds abs(k.h[r, u]) <= NEAR * k.noise && push!(kinks.judged, Contact(b, q, r, u))
        end
    end
    near = length(kinks.judged)
    for list in (kinks.met, kinks.active), c in list
        c in kinks.judged || push!(kinks.judged, c)
    end
    for f in kinks.fellows
        f.contact in kinks.judged || push!(kinks.judged, f.contact)
    end
    length(kinks.judged) > near && sort!(kinks.judged, by=c -> c.block)
    return nothing
end

# Normals and pulls of what is judged, with the sides as they are, and the whole gradient there in `g`.
function pulls!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g) where {T}
    value_and_gradient_at!(g, problem, y)
    net, θ, last = kinks.net, parameters(problem, y), 0
    ws, scale = net.shares[1].workspace, one(T) / net.n_samples
    resize!(kinks.pull, length(kinks.judged))
    while length(kinks.normals) < length(kinks.judged)
        push!(kinks.normals, zeros(T, problem.n))
    end
    for (i, c) in enumerate(kinks.judged)
        if c.block != last
            last = activations!(kinks, θ, c, last)
            block_loss!(net.objective, Base.last(ws.E), ws, net.blocks[c.block], scale)
        end
        kinks.pull[i] = sides(kinks, c).jump * sensitivity(kinks, θ, c)
        copyto!(kinks.normals[i], normal!(kinks, problem, c, θ))
    end
    return nothing
end

# Who goes with whom: the first that has the same normal, but for a factor.
function find_leaders!(kinks::Kinks{T}) where {T}
    m = length(kinks.judged)
    resize!(kinks.leader, m)
    resize!(kinks.ratio, m)
    for i in 1:m
        n = kinks.normals[i]
        square = dot(n, n)
        kinks.leader[i], kinks.ratio[i] = i, one(T)
        square > 0 || continue
        for j in 1:i-1
            kinks.leader[j] == j || continue
            l = kinks.normals[j]
            whole, both = dot(l, l), dot(n, l)
            whole > 0 && both^2 >= (1 - 64 * eps(T)) * whole * square || continue
            kinks.leader[i], kinks.ratio[i] = j, both / whole
            break
        end
    end
    return nothing
end

# The side that goes with the weight `w` of the leader.
follow(w::T, ratio::T) where {T} = ratio > 0 ? w : 1 - w

const SWEEPS = 200             # of all that is judged
const FLIPS = 3                # of a kink that the flow points away from: with more of them there may be no end

# Another side for what is judged, and for the gradient `g`; by how much it was another one.
function turn!(kinks::Kinks, i::Int, new, g)
    c = kinks.judged[i]
    w = side(kinks, c)
    add_scaled!(g, kinks.pull[i] * (new - w), kinks.normals[i])
    side!(kinks, c, new)
    return abs(new - w)
end

"""
    judge!(kinks, problem, y, g)

Sides at `y` such that what is judged moves to its side, or stays at its kink with a weight between: one kink after the
other, again and again (Gauss–Seidel). Where the gradient grows across all kinks this is the part of least norm of all its
convex combinations, which is unique. Else it begins with the sides that the flow came with.
"""
function judge!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g) where {T}
    foreach(empty!, (kinks.active, kinks.fellows))
    kinks.known = false
    pulls!(kinks, problem, y, g)
    find_leaders!(kinks)
    size = norm(g)
    changed = zero(T)
    for (i, l) in enumerate(kinks.leader)
        l == i && continue
        changed = max(changed, turn!(kinks, i, follow(side(kinks, kinks.judged[l]), kinks.ratio[i]), g))
        kinks.pull[l] += kinks.pull[i] * abs(kinks.ratio[i])
        kinks.leeway[l] = max(kinks.leeway[l], kinks.leeway[i])
    end
    changed = max(changed, sweep!(kinks, g, size))
    if undecided(kinks, g)
        probe!(kinks, g)
        changed = max(changed, one(T), sweep!(kinks, g, size))
    end
    for (i, l) in enumerate(kinks.leader)
        l == i || side!(kinks, kinks.judged[i], follow(side(kinks, kinks.judged[l]), kinks.ratio[i]))
    end
    return changed
end

function sweep!(kinks::Kinks{T}, g, size) where {T}
    changed = zero(T)
    for sweep in 1:SWEEPS
        moved = zero(T)
        for (i, c) in enumerate(kinks.judged)
            kinks.leader[i] == i || continue
            n, pull, w = kinks.normals[i], kinks.pull[i], side(kinks, c)
            square = dot(n, n)
            square > 0 || continue
            toward = -dot(g, n)
            if pull > 0
                slack = kinks.leeway[i] / 2
                new = clamp(w + toward / (pull * square), -slack, 1 + slack)
            else
                sweep <= FLIPS || continue
                new = toward > 0 ? one(T) : toward < 0 ? zero(T) : w
            end
            new == w && continue
            moved = max(moved, abs(pull) * sqrt(square) * turn!(kinks, i, new, g))
            changed = max(changed, abs(new - w))
        end
        moved > 4 * eps(T) * size || break
    end
    return changed
end

# Whether a kink that the flow points away from is held by others that it depends on. Its side may then be one that no
# point nearby has, and small steps would lead away.
function undecided(kinks::Kinks{T}, g) where {T}
    size = norm(g)
    return any(eachindex(kinks.judged)) do i
        n = kinks.normals[i]
        kinks.leader[i] == i && kinks.pull[i] < 0 && norm(n) > 0 && abs(dot(g, n)) <= T(1e-4) * norm(n) * size
    end
end

const TINY_STEPS = 400             # steps: sides are known to one in the half of them

"Sides that equal steps from the point have in the mean of their second half, `g` along; the first is along `g` as it is."
function probe!(kinks::Kinks{T}, g) where {T}
    m = length(kinks.judged)
    mean, z = fill!(resize!(kinks.share, m), zero(T)), fill!(kinks.y, zero(T))
    for p in 1:TINY_STEPS
        add_scaled!(z, -one(T), g)
        for i in 1:m
            kinks.leader[i] == i || continue
            turn!(kinks, i, T(dot(z, kinks.normals[i]) > 0), g)
            2p > TINY_STEPS && (mean[i] += side(kinks, kinks.judged[i]) / (TINY_STEPS ÷ 2))
        end
    end
    for i in 1:m
        kinks.leader[i] == i && turn!(kinks, i, mean[i], g)
    end
    return nothing
end

# Of one sample in several layers the normals and pulls depend on the sides: then they are judged again.
const ROUNDS = 10

"Sides and weights after the step to `state.y`: what is at its kink crosses it, slides along it or leaves it."
function decide!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    value_and_gradient_at!(state.g, problem, state.y)
    gather!(kinks)
    slack = resize!(kinks.leeway, length(kinks.judged))
    fill!(slack, slack_after(T, 0))
    for c in kinks.met
        at = findfirst(==(c), kinks.judged)
        slack[at] = slack_after(T, doubt!(kinks, c))
    end
    for (i, c) in enumerate(kinks.active)
        at = findfirst(==(c), kinks.judged)
        slack[at] = c in kinks.met ? kinks.slack[i] : max(slack[at], kinks.slack[i])
    end
    layers = length(kinks.net.layers) > 2
    for _ in 1:(layers ? ROUNDS : 1)
        judge!(kinks, problem, state.y, state.g) > sqrt(eps(T)) || break
    end
    empty!(kinks.slack)
    for (i, c) in enumerate(kinks.judged)
        l = kinks.leader[i]
        w, s = side(kinks, kinks.judged[l]), slack[l]
        if w <= -s / 2 || w >= 1 + s / 2 || w == 0 || w == 1
            side!(kinks, c, follow(T(w > 0.5), kinks.ratio[i]))
        elseif l < i
            side!(kinks, c, follow(side(kinks, kinks.judged[l]), kinks.ratio[i]))
            push!(kinks.fellows, Fellow{T}(c, kinks.judged[l], kinks.judged[l] in kinks.active ? kinks.ratio[i] : zero(T)))
        else
            side!(kinks, c, clamp(w, eps(T), 1 - eps(T)))
            m = length(kinks.active) + 1
            while length(kinks.basis) < m
                push!(kinks.basis, zeros(T, problem.n))
            end
            if orthogonalise!(copyto!(kinks.basis[m], kinks.normals[i]), kinks, m) > 0
                push!(kinks.active, c)
                push!(kinks.slack, s)
            else
                push!(kinks.fellows, Fellow{T}(c, c, zero(T)))
            end
        end
    end
    kinks.known = false
    settle_weights!(kinks, problem, state)
    for c in kinks.met                           # what should have left and did not
        i = findfirst(==(c), kinks.active)
        i === nothing || (kinks.slack[i] = max(kinks.slack[i], slack_after(T, doubt!(kinks, c))))
    end
    return nothing
end

"A side for `c` and for its fellows."
function lead!(kinks::Kinks, c::Contact, w)
    side!(kinks, c, w)
    for f in kinks.fellows
        f.leader == c && f.ratio != 0 && side!(kinks, f.contact, follow(w, f.ratio))
    end
    return nothing
end

"Leave the kinks whose weights are out of range, worst first."
function settle_weights!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    while true
        weights!(kinks, problem, state.y, state.g)
        worst, at = zero(T), 0
        for (i, w) in enumerate(kinks.weight)
            out = -inside(w, kinks.slack[i] / 2)
            out > worst && ((worst, at) = (out, i))
        end
        if at == 0
            for (i, c) in enumerate(kinks.active)
                lead!(kinks, c, clamp(kinks.weight[i], eps(T), 1 - eps(T)))
            end
            break
        end
        c = kinks.active[at]
        lead!(kinks, c, isfinite(kinks.weight[at]) ? T(kinks.weight[at] > 0.5) : round(side(kinks, c)))
        filter!(f -> f.leader != c, kinks.fellows)
        deleteat!(kinks.active, at)
        deleteat!(kinks.slack, at)
        kinks.known = false
    end
    value_and_gradient_at!(state.g, problem, state.y)
    state.loss, state.gnorm = problem.value[], problem.gnorm
    return nothing
end
